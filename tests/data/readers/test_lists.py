from __future__ import annotations

from pathlib import Path

import pytest

from mdprop.data.readers.lists import read_rows
from mdprop.errors import DataError


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
