from __future__ import annotations

from pathlib import Path

import pytest

from mdprop.errors import DataError
from tests.data.readers.blocks import counts, splits_of
from tests.data.readers.trees import cub200, spread


def test_the_published_counts(big_tree: Path) -> None:
    root = big_tree / "CUB_200_2011"
    cub200(root, spread(5864, 100) + spread(5924, 100))
    listed = splits_of("cub200", root, check_counts=True)
    assert counts(listed) == {
        "train": (100, 5864),
        "test": (100, 5924),
    }
    assert list(listed["train"]) == [f"{n:03}.Kind_{n}" for n in range(1, 101)]
    assert list(listed["test"]) == [f"{n:03}.Kind_{n}" for n in range(101, 201)]
    (root / "images.txt").unlink()
    found = splits_of("cub200", big_tree, check_counts=True)
    for split, classes in listed.items():
        for name, entries in classes.items():
            assert [entry.path for entry in found[split][name]] == [entry.path for entry in entries]


def test_only_listed_images_are_taken(tmp_path: Path) -> None:
    cub200(tmp_path, [2, 3, 2, 2])
    list_file = tmp_path / "images.txt"
    list_file.write_text("".join(list_file.read_text().splitlines(keepends=True)[1:]) + "\n")
    splits = splits_of("cub200", tmp_path)
    assert {s: [len(e) for e in c.values()] for s, c in splits.items()} == {"train": [1, 3], "test": [2, 2]}
    entry = splits["train"]["002.Kind_2"][0]
    assert (entry.path, entry.read().size) == ("images/002.Kind_2/Kind_2_0001_10.jpg", (4, 3))


def test_missing_images_are_counted(tmp_path: Path) -> None:
    cub200(tmp_path, [3, 3, 3, 3])
    for image in (tmp_path / "images" / "003.Kind_3").iterdir():
        image.unlink()
    with pytest.raises(
        DataError,
        match=rf"^3 of the 12 images that {tmp_path}/images.txt lists are missing: "
        rf"{tmp_path}/images/003.Kind_3/Kind_3_0001_10.jpg; .*0002_20.jpg; .*0003_30.jpg: extract the images "
        "completely$",
    ):
        splits_of("cub200", tmp_path)


@pytest.mark.parametrize("line", ["3", "3 nofolder.jpg"])
def test_a_malformed_line(tmp_path: Path, line: str) -> None:
    cub200(tmp_path, [2, 2, 2, 2])
    lines = (tmp_path / "images.txt").read_text().splitlines()
    (tmp_path / "images.txt").write_text("\n".join([*lines[:2], line, *lines[3:]]))
    with pytest.raises(
        DataError, match=rf"^{tmp_path}/images.txt, line 3: '{line}' is not '<id> <class>/<file>': extract"
    ):
        splits_of("cub200", tmp_path)


def test_another_folder(tmp_path: Path) -> None:
    (tmp_path / "birds").mkdir()
    with pytest.raises(DataError, match=f"^{tmp_path} is no CUB-200-2011: put there CUB_200_2011.tgz as it"):
        splits_of("cub200", tmp_path)
