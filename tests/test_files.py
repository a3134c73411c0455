from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path

import pytest

from mdprop.errors import DiskError, ResultError
from mdprop.files import read_json, read_sealed_json, sealed_file, sealed_json, whole_file, write_files
from mdprop.seals import BLANK


def test_write_makes_folders_and_leaves_nothing_else(tmp_path: Path) -> None:
    write_files({tmp_path / "new" / "a.txt": "ε\n", tmp_path / "b.txt": "b"})
    assert (tmp_path / "new" / "a.txt").read_bytes() == "ε\n".encode()
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.txt", "b.txt", "new"]


def test_write_is_all_or_nothing(tmp_path: Path) -> None:
    (tmp_path / "b.txt").mkdir()
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(DiskError, match=r"b\.txt cannot be written \(Is a directory\): move away"):
        write_files({tmp_path / "a.txt": "new", tmp_path / "b.txt": "b"})
    assert (tmp_path / "a.txt").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "b.txt"]


def test_write_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "report").write_text("")
    with pytest.raises(DiskError, match=r"report/a\.txt cannot be written"):
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


def test_sealed_json_reads_back(tmp_path: Path) -> None:
    for content in ({}, {"a": {"b": [1, None]}, "ε": float("inf")}):
        (tmp_path / "a.json").write_text(sealed_json(content), encoding="utf-8")
        assert read_sealed_json(tmp_path / "a.json", "run this") == content
        assert json.loads((tmp_path / "a.json").read_text())["$seal"].startswith("sealed:")
    with pytest.raises(ResultError, match=r"none not found: run this$"):
        read_sealed_json(tmp_path / "none", "run this")
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(ResultError, match=r"a\.json is damaged, or of another.*: delete it and run this$"):
        read_sealed_json(tmp_path / "a.json", "run this")


def test_numbers_and_depths_that_nothing_can_hold(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": 1' + "0" * 400 + "}")
    assert read_json(tmp_path / "a.json", "run this") == {"a": float("inf")}
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(ResultError, match=r"a\.json is not valid JSON \(.*\): run this$"):
        read_json(tmp_path / "a.json", "run this")


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o002])
def test_files_are_as_readable_as_the_umask_says(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with whole_file(tmp_path / "a" / "one") as partial:
            partial.write_text("1")
        with sealed_file(tmp_path / "a" / "two") as partial:
            partial.write_text(BLANK)
        write_files({tmp_path / "a" / "three": "3"})
    finally:
        os.umask(before)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "a").iterdir()}
    assert modes == {0o666 & ~umask}
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o777 & ~umask


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("moment", ["write", "sync", "rename"])
def test_what_a_disk_refuses_is_one_line_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, moment: str
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def refuse(*arguments: object) -> None:
        raise OSError(number, os.strerror(number))

    def write() -> None:
        with whole_file(path) as partial:
            partial.write_text("new")
            if moment == "write":
                refuse()
            monkeypatch.setattr(*((os, "fsync") if moment == "sync" else (Path, "replace")), refuse)

    message = rf"^{path} cannot be written \({os.strerror(number)}\): .*, then run again$"
    with pytest.raises(DiskError, match=message):
        write()
    with pytest.raises(DiskError, match=message) if moment != "write" else contextlib.nullcontext():
        write_files({path: "new"})
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == ("new" if moment == "write" else "old")


def test_errors_about_other_files_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="elsewhere"), whole_file(tmp_path / "file"):
        (tmp_path / "elsewhere").read_text()
    with pytest.raises(ConnectionResetError), whole_file(tmp_path / "file"):
        raise ConnectionResetError
