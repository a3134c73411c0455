from __future__ import annotations

from pathlib import Path

import pytest

from mdprop.errors import ResultError
from mdprop.files import read_json, whole_file, write_files


def test_write_makes_folders_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_files({tmp_path / "new" / "a.txt": "ε\n", tmp_path / "b.txt": "b"})
    assert (tmp_path / "new" / "a.txt").read_bytes() == "ε\n".encode()
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.txt", "b.txt", "new"]


def test_write_is_all_or_nothing(tmp_path: Path) -> None:
    (tmp_path / "b.txt").mkdir()
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(ResultError, match=r"b\.txt is a folder"):
        write_files({tmp_path / "a.txt": "new", tmp_path / "b.txt": "b"})
    assert (tmp_path / "a.txt").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "b.txt"]


def test_write_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "report").write_text("")
    with pytest.raises(ResultError, match=r"report/a\.txt cannot be written"):
        write_files({tmp_path / "report" / "a.txt": "a"})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not valid JSON"),
        (b'{"a": ', "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        (b"[1]", "must hold a JSON object, not list"),
    ],
)
def test_read_names_file_and_remedy(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "metrics.json"
    path.write_bytes(content)
    with pytest.raises(ResultError, match=rf"metrics\.json {message}.*: run this$"):
        read_json(path, "run this")


def test_read_of_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="none not found: run this"):
        read_json(tmp_path / "none", "run this")
    with pytest.raises(ResultError, match=r"cannot be read.*: run this"):
        read_json(tmp_path, "run this")


def test_a_whole_file_appears_at_the_end(tmp_path):
    path = tmp_path / "file"
    with whole_file(path) as partial:
        partial.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new" and list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="full"), whole_file(path) as partial:
        partial.write_text("half")
        raise RuntimeError("full")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
