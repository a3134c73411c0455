from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mdprop.data.readers.archives import extract
from mdprop.errors import DataError
from tests.data.readers.packing import EXTRACTED, FILES, NOISE, files, nothing_changes, pack


@pytest.mark.parametrize("name", ["a.tar", "a.tgz", "a.tar.gz", "a.tar.bz2", "a.tar.xz", "a.zip"])
@pytest.mark.parametrize("there", [False, True])
def test_the_folder_of_the_same_name_becomes_the_root(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, there: bool
) -> None:
    archive = pack(tmp_path / name)
    root = tmp_path / "raw" / "set"
    if there:
        root.mkdir(parents=True)
    extract(archive, root)
    assert files(root) == EXTRACTED
    assert archive.exists()
    assert {p.name for p in root.parent.iterdir()} == {"set"}
    assert f"extracting {name}: 4 in " in capsys.readouterr().err


def test_without_such_a_folder_all_paths_stay(tmp_path: Path) -> None:
    extract(pack(tmp_path / "a.tgz"), tmp_path / "other")
    assert files(tmp_path / "other") == FILES


@pytest.mark.parametrize("name", ["a.tar", "a.zip"])
def test_what_else_is_named_like_the_root_stays(tmp_path: Path, name: str) -> None:
    content = {"set": b"a file", "below/set/a": b"deeper", "set2/a": b"another"}
    extract(pack(tmp_path / name, content), tmp_path / "set")
    assert files(tmp_path / "set") == content


@pytest.mark.parametrize("name", ["a.tar", "a.zip"])
def test_folders_of_their_own(tmp_path: Path, name: str) -> None:
    content = {"./": b"", "./set/": b"", "set/a/": b"", "./set/a/1.txt": b"1"}
    extract(pack(tmp_path / name, content), tmp_path / "set")
    assert files(tmp_path / "set") == {"a/1.txt": b"1"}


@pytest.mark.parametrize("exists", [False, True])
def test_a_root_that_is_a_link(tmp_path: Path, exists: bool) -> None:
    if exists:
        (tmp_path / "disk").mkdir()
    (tmp_path / "set").symlink_to("disk")
    extract(pack(tmp_path / "a.tgz"), tmp_path / "set")
    assert (tmp_path / "set").is_symlink()
    assert files(tmp_path / "disk") == EXTRACTED


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_root_that_is_not_empty_is_refused(tmp_path: Path, what: str) -> None:
    archive = pack(tmp_path / "a.tgz")
    root = tmp_path / "set"
    if what == "folder":
        root.mkdir()
    (root if what == "file" else root / "mine.txt").write_text("mine")
    with (
        nothing_changes(tmp_path),
        pytest.raises(DataError, match=f"^{root} exists and is not an empty folder: remove it"),
    ):
        extract(archive, root)


@pytest.mark.parametrize("name", ["a.tgz", "a.tar.bz2", "a.tar.xz", "a.zip"])
def test_a_truncated_archive_is_refused(tmp_path: Path, name: str) -> None:
    archive = pack(tmp_path / name, FILES | {"noise": NOISE})
    archive.write_bytes(archive.read_bytes()[:4096])
    with (
        nothing_changes(tmp_path),
        pytest.raises(DataError, match=rf"^{archive} is damaged or no archive \(.+\): remove it, get it"),
    ):
        extract(archive, tmp_path / "set")


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tgz").write_bytes(b"<html>no archive</html>")
    with pytest.raises(
        DataError, match=r"a\.tgz is damaged or no archive \(File is not a zip file\): remove"
    ):
        extract(tmp_path / "a.tgz", tmp_path / "set")


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"^{tmp_path}/no\.tgz: No such file or directory: mend the path"):
        extract(tmp_path / "no.tgz", tmp_path / "set")


@pytest.mark.parametrize("name", ["a.tgz", "a.zip"])
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    archive = pack(tmp_path / name)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    monkeypatch.setattr("tarfile.copyfileobj", full)
    with nothing_changes(tmp_path), pytest.raises(DataError, match=r"No space left on device: mend the path"):
        extract(archive, tmp_path / "set")


def test_a_name_too_long_for_the_file_system(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.tgz", FILES | {"n" * 300: b""})
    with nothing_changes(tmp_path), pytest.raises(DataError, match="File name too long"):
        extract(archive, tmp_path / "set")
