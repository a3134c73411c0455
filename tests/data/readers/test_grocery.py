from __future__ import annotations

from pathlib import Path

import pytest

from mdprop.errors import DataError
from tests.data.readers.blocks import counts, splits_of
from tests.data.readers.trees import place, spread


def products(root: Path, sizes: list[int]) -> None:
    """images/000.Product_0/0.jpg, ..."""
    place(
        root / "images",
        [f"{number:03}.Product_{number}/{i}.jpg" for number, size in enumerate(sizes) for i in range(size)],
    )


def test_the_published_counts(big_tree: Path) -> None:
    products(big_tree, spread(3051, 41) + spread(2370, 40))
    splits = splits_of("grocery", big_tree, check_counts=True)
    assert counts(splits) == {"train": (41, 3051), "test": (40, 2370)}
    assert list(splits["train"]) == [f"{n:03}.Product_{n}" for n in range(41)]
    assert list(splits["test"]) == [f"{n:03}.Product_{n}" for n in range(41, 81)]


@pytest.mark.parametrize(("classes", "train"), [(4, 2), (5, 3)])
def test_of_a_part_an_odd_class_trains(tmp_path: Path, classes: int, train: int) -> None:
    products(tmp_path, [2] * classes)
    assert counts(splits_of("grocery", tmp_path)) == {
        "train": (train, 2 * train),
        "test": (classes - train, 2 * (classes - train)),
    }
    with pytest.raises(
        DataError, match=r"^Grocery Store at .* published are 3,051 of 41; .*check_counts=false"
    ):
        splits_of("grocery", tmp_path, check_counts=True)


def test_another_folder(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    with pytest.raises(DataError, match=rf"^{tmp_path} is no Grocery Store: put there a folder a product"):
        splits_of("grocery", tmp_path)
