from __future__ import annotations

from pathlib import Path

import pytest

from mdprop.data.readers import READERS, read_published, source
from mdprop.data.readers.cub200 import CUB200
from mdprop.data.readers.source import read_rows
from mdprop.errors import DataError
from tests.data.published.trees import cub200

SERVED = [name for name, (published, _) in READERS.items() if published.archive]


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("exists", [False, True])
def test_a_missing_root_says_where_to_get_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str, exists: bool
) -> None:
    def obtain(url: str, md5: str, size: int, into: Path) -> None:
        raise DataError(f"{url} did not answer: try later")

    monkeypatch.setattr(source, "obtain", obtain)
    published = READERS[reader][0]
    if exists:
        (tmp_path / "raw").mkdir()
        (tmp_path / "raw" / ".gitkeep").touch()
    with pytest.raises(DataError) as caught:
        read_published(reader, str(tmp_path / "raw"), True, "datasets.d")
    text = str(caught.value)
    assert text.startswith(f"datasets.d.root = {tmp_path}/raw is missing or empty")
    assert f"get it {published.source}, and put there {published.layout}" in text
    assert ("did not answer" in text) == (reader in SERVED)


def test_what_is_served_is_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def obtain(url: str, md5: str, size: int, into: Path) -> None:
        calls.append((url, md5, size, into))
        cub200(into / "CUB_200_2011", [2, 2, 2, 2])

    monkeypatch.setattr(source, "obtain", obtain)
    root = tmp_path / "raw" / "birds"
    for _ in range(2):
        splits = read_published("cub200", str(root), False, "datasets.d")
        assert [len(splits[split]) for split in ("train", "test")] == [2, 2]
    assert CUB200.archive is not None
    assert calls == [(*CUB200.archive, root)]


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        DataError, match=r"^datasets\.d\.root = \S+ is no folder: put images there as CUB_200"
    ):
        read_published("cub200", str(tmp_path / "file"), True, "datasets.d")


def test_other_counts(tmp_path: Path) -> None:
    cub200(tmp_path, [2, 3, 2, 2])
    with pytest.raises(
        DataError,
        match=rf"^CUB-200-2011 at {tmp_path} has 5 images of 2 classes for train, published are 5,864 of "
        r"100; it was probably not extracted completely: complete it, or .* datasets\.d\.check_counts=false$",
    ):
        read_published("cub200", str(tmp_path), True, "datasets.d")
    assert len(read_published("cub200", str(tmp_path), False, "datasets.d")["train"]) == 2


def test_rows(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    file.write_bytes("\ufeffa  b\r\n1 2 3 \r\n\r\n4 ü x\r\n".encode())
    assert list(read_rows(file, "one two", ["a b"])) == [(2, ["1", "2 3"]), (4, ["4", "ü x"])]


def test_rows_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DataError, match=r"list.txt is no text file: extract the data set again$"):
        list(read_rows(tmp_path / "list.txt", "one two"))


@pytest.mark.parametrize("text", ["", "a header\n", "a header\n\n \n"])
def test_a_list_without_images(tmp_path: Path, text: str) -> None:
    file = tmp_path / "list.txt"
    file.write_text(text)
    with pytest.raises(DataError, match=rf"^{file} lists no images: extract the data set again$"):
        list(read_rows(file, "id path", ["*"]))


def test_a_long_line_is_shortened(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("x" * 5000)
    with pytest.raises(DataError, match=r"list.txt, line 1: 'x{60}\.\.\.' is not 'one two'"):
        list(read_rows(tmp_path / "list.txt", "one two"))
