from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from mdprop.errors import DataError
from tests.data.readers.blocks import counts, splits_of
from tests.data.readers.trees import car, cars_annotated, cars_in_folders, cars_in_halves, place, spread

SIZES = spread(8054, 98) + spread(8131, 98)
COUNTS = {"train": (98, 8054), "test": (98, 8131)}


def test_the_published_counts_by_annotations(big_tree: Path) -> None:
    cars_annotated(big_tree, SIZES)
    splits = splits_of("cars196", big_tree, check_counts=True)
    assert counts(splits) == COUNTS
    assert set(splits["train"]) == {car(number, 196) for number in range(1, 99)}
    assert splits["test"][car(196, 196)][0].path == "car_ims/000196.jpg"


def test_the_published_counts_in_folders(big_tree: Path) -> None:
    cars_in_folders(big_tree / "car_data" / "car_data", SIZES)
    splits = splits_of("cars196", big_tree, check_counts=True)
    assert counts(splits) == COUNTS
    assert list(splits["train"]) == [f"Car {number:03}" for number in range(1, 99)]
    paths = [entry.path for c in splits.values() for entries in c.values() for entry in entries]
    assert len(set(paths)) == 16185


def test_halves_are_counted_together(tmp_path: Path) -> None:
    cars_in_halves(tmp_path, [2, 3, 2, 5])
    with pytest.raises(DataError, match="has 5 images of 2 classes for train, published are 8,054 of 98"):
        splits_of("cars196", tmp_path, check_counts=True)


@pytest.mark.parametrize("below", ["", "cars196", "stanford_cars"])
@pytest.mark.parametrize(
    ("nested", "devkit", "names"),
    [(False, "devkit", True), (True, "car_devkit/devkit", True), (False, ".", False)],
)
def test_two_halves_and_their_devkit(
    tmp_path: Path, below: str, nested: bool, devkit: str, names: bool
) -> None:
    cars_in_halves(tmp_path / below, [2, 3, 2, 5], nested=nested, devkit=devkit, names=names)
    splits = splits_of("cars196", tmp_path)
    called = [car(number, 4) if names else f"{number:03}" for number in range(1, 5)]
    found = {split: {name: len(entries) for name, entries in c.items()} for split, c in splits.items()}
    assert found == {
        "train": dict(zip(called[:2], (2, 3), strict=True)),
        "test": dict(zip(called[2:], (2, 5), strict=True)),
    }
    within = "cars_test/cars_test" if nested else "cars_test"
    assert [entry.path for entry in splits["train"][called[1]]] == [
        f"cars_train/{'cars_train/' if nested else ''}00002.jpg",
        f"{within}/00002.jpg",
        f"{within}/00005.jpg",
    ]
    assert splits["test"][called[3]][0].read().size == (4, 3)


def test_halves_beside_annotations_of_absent_images(tmp_path: Path) -> None:
    cars_annotated(tmp_path, [2, 2, 2, 2])
    shutil.rmtree(tmp_path / "car_ims")
    cars_in_halves(tmp_path, [2, 3, 2, 5])
    assert counts(splits_of("cars196", tmp_path)) == {"train": (2, 5), "test": (2, 7)}


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (
            "devkit",
            "devkit/cars_train_annos.mat, which has the classes of the images in cars_train, is missing: ",
        ),
        (
            "devkit/cars_train_annos.mat",
            "devkit/cars_train_annos.mat, which has the classes .* is missing: put it",
        ),
        (
            "devkit/cars_test_annos_withlabels.mat",
            r"test_annos_withlabels.mat, .* is missing \(cars_test_annos.mat has no classes\): put it there$",
        ),
        ("cars_train", r"the \d images that .*cars_train_annos.mat lists are missing: "),
        ("cars_test", r"the \d images that .*cars_test_annos_withlabels.mat lists are missing: "),
        (
            "cars_test/00002.jpg",
            "^1 of the 7 images that .* lists are missing: .*cars_test/00002.jpg: extract",
        ),
    ],
)
def test_halves_that_lack_something(tmp_path: Path, missing: str, message: str, counted: bool) -> None:
    cars_in_halves(tmp_path, [2, 3, 2, 5])
    gone = tmp_path / missing
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    with pytest.raises(DataError, match=message):
        splits_of("cars196", tmp_path, check_counts=counted)


@pytest.mark.parametrize("below", ["", "car_data", "car_data/car_data"])
def test_train_and_test_of_the_classification_split_are_merged(tmp_path: Path, below: str) -> None:
    cars_in_folders(tmp_path / below, [2, 3, 2, 2])
    splits = splits_of("cars196", tmp_path)
    assert [entry.path for entry in splits["train"]["Car 002"]] == [
        str(Path(below) / path)
        for path in ("train/Car 002/00002.jpg", "test/Car 002/00002.jpg", "test/Car 002/00003.jpg")
    ]
    assert list(splits["test"]) == ["Car 003", "Car 004"]


@pytest.mark.parametrize("below", ["", "images"])
def test_a_folder_a_class(tmp_path: Path, below: str) -> None:
    place(tmp_path / below, (f"{name}/1.jpg" for name in "cabd"))
    splits = splits_of("cars196", tmp_path)
    assert {split: list(classes) for split, classes in splits.items()} == {
        "train": ["a", "b"],
        "test": ["c", "d"],
    }


@pytest.mark.parametrize("below", ["", "cars196"])
def test_classes_go_by_number(tmp_path: Path, below: str) -> None:
    cars_annotated(tmp_path / below, [2, 2, 3, 2])
    assert {split: set(classes) for split, classes in splits_of("cars196", tmp_path).items()} == {
        "train": {car(1, 4), car(2, 4)},
        "test": {car(3, 4), car(4, 4)},
    }


def test_classes_without_names(tmp_path: Path) -> None:
    cars_annotated(tmp_path, [1, 2, 1, 1], names=False)
    assert {split: list(classes) for split, classes in splits_of("cars196", tmp_path).items()} == {
        "train": ["001", "002"],
        "test": ["003", "004"],
    }


def test_a_missing_image(tmp_path: Path) -> None:
    cars_annotated(tmp_path, [2, 2, 2, 2])
    (tmp_path / "car_ims" / "000007.jpg").unlink()
    with pytest.raises(
        DataError,
        match=r"^1 of the 8 images that \S+/cars_annos.mat lists are missing.*car_ims/000007.jpg: ext",
    ):
        splits_of("cars196", tmp_path)


def test_a_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "cars_annos.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(50))
    with pytest.raises(
        DataError, match=rf"^{tmp_path}/cars_annos.mat cannot be read \(.*\): get the file again$"
    ):
        splits_of("cars196", tmp_path)


@pytest.mark.parametrize("content", [{"other": 1}, {"annotations": np.zeros(3)}])
def test_a_file_of_something_else(tmp_path: Path, content: dict[str, object]) -> None:
    savemat(str(tmp_path / "cars_annos.mat"), content)
    with pytest.raises(
        DataError, match=rf"^{tmp_path}/cars_annos.mat has no annotations with the fields rel"
    ):
        splits_of("cars196", tmp_path)


def test_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "cars").mkdir()
    with pytest.raises(
        DataError, match=rf"^{tmp_path} is no CARS196: put there car_ims/ and cars_annos.mat, or"
    ):
        splits_of("cars196", tmp_path)
