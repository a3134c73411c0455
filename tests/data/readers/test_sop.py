from __future__ import annotations

from pathlib import Path

import pytest

from mdprop.errors import DataError
from tests.data.readers.blocks import counts, splits_of
from tests.data.readers.trees import sop, spread


def test_the_published_counts(big_tree: Path) -> None:
    sop(big_tree, spread(59551, 11318), spread(60502, 11316))
    splits = splits_of("sop", big_tree, check_counts=True)
    assert counts(splits) == {
        "train": (11318, 59551),
        "test": (11316, 60502),
    }
    assert not set(splits["train"]) & set(splits["test"])


@pytest.mark.parametrize("below", ["", "Stanford_Online_Products"])
def test_classes_are_products(tmp_path: Path, below: str) -> None:
    sop(tmp_path / below, [2, 3], [2, 2])
    splits = splits_of("sop", tmp_path)
    assert {split: list(classes) for split, classes in splits.items()} == {
        "train": ["00001", "00002"],
        "test": ["00003", "00004"],
    }
    paths = [entry.path for entry in splits["train"]["00002"]]
    assert paths == [f"bicycle_final/100002_{index}.JPG" for index in range(3)]
    assert splits["train"]["00002"][1].read().size == (4, 3)


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (1, "1 1 1 chair_final/100001_0.JPG"),
        (2, "1 1 chair_final/100001_0.JPG"),
        (3, "2 one 2 chair_final/1.JPG"),
    ],
)
def test_a_malformed_line(tmp_path: Path, number: int, line: str) -> None:
    sop(tmp_path, [2, 2], [2, 2])
    file = tmp_path / "Ebay_train.txt"
    lines = file.read_text().splitlines()
    lines[number - 1] = line
    file.write_text("\n".join(lines))
    with pytest.raises(
        DataError,
        match=rf"^{file}, line {number}: '{line}' is not 'image_id class_id super_class_id path': ext",
    ):
        splits_of("sop", tmp_path)


def test_of_images_listed_twice_the_first_is_named(tmp_path: Path) -> None:
    sop(tmp_path, [2, 2], [3, 3])
    file = tmp_path / "Ebay_test.txt"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines, lines[6], lines[2], lines[4], lines[6]]))
    with pytest.raises(
        DataError,
        match=rf"^{file}, line 8: {lines[6].split()[-1]} is listed a second time: extract the file again$",
    ):
        splits_of("sop", tmp_path)


def test_a_missing_list(tmp_path: Path) -> None:
    sop(tmp_path, [2, 2], [2, 2])
    (tmp_path / "Ebay_test.txt").unlink()
    with pytest.raises(DataError, match=rf"^{tmp_path}/Ebay_test.txt is missing: extract the data set again"):
        splits_of("sop", tmp_path)


def test_another_folder(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match=f"^{tmp_path} is no Stanford Online Products: put there Stanford_On"):
        splits_of("sop", tmp_path)
