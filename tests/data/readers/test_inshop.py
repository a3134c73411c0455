from __future__ import annotations

from pathlib import Path

import pytest

from mdprop.errors import DataError
from tests.data.readers.blocks import counts, splits_of
from tests.data.readers.trees import inshop, spread


def test_the_published_counts(big_tree: Path) -> None:
    inshop(big_tree, spread(25882, 3997), spread(14218, 3985), spread(12612, 3985))
    splits = splits_of("inshop", big_tree, check_counts=True)
    assert counts(splits) == {
        "train": (3997, 25882),
        "test": (3985, 14218),
        "gallery": (3985, 12612),
    }
    assert set(splits["test"]) == set(splits["gallery"])
    assert not set(splits["test"]) & set(splits["train"])


@pytest.mark.parametrize("images", ["", "Img"])
@pytest.mark.parametrize("lists", ["", "Eval", "Anno"])
def test_layouts(tmp_path: Path, images: str, lists: str) -> None:
    inshop(tmp_path, [1, 2], [1, 1], [2, 1], images, lists)
    splits = splits_of("inshop", tmp_path)
    assert {s: {n: len(e) for n, e in c.items()} for s, c in splits.items()} == {
        "train": {"id_00000001": 1, "id_00000003": 2},
        "test": {"id_00000002": 1, "id_00000004": 1},
        "gallery": {"id_00000002": 2, "id_00000004": 1},
    }
    entry = splits["gallery"]["id_00000002"][1]
    assert entry.path == "img/WOMEN/Dresses/id_00000002/g01_1_front.jpg"
    assert entry.read().size == (4, 3)


@pytest.mark.parametrize(
    ("number", "line", "message"),
    [
        (2, "image_name item_id", "'image_name item_id' is not 'image_name item_id evaluation_status': ext"),
        (3, "img/a.jpg id_1", "'img/a.jpg id_1' is not 'image_name item_id evaluation_status': extract the"),
        (4, "img/a.jpg id_1 val", r"'img/a.jpg id_1 val' is not '.* evaluation_status \(train, query, gall"),
        (1, "5", "'5' images are announced, 9 listed: extract the file again$"),
    ],
)
def test_a_malformed_line(tmp_path: Path, number: int, line: str, message: str) -> None:
    inshop(tmp_path, [2, 2], [1, 1], [2, 1])
    file = tmp_path / "Eval" / "list_eval_partition.txt"
    lines = file.read_text().splitlines()
    lines[number - 1] = line
    file.write_text("\n".join(lines))
    with pytest.raises(DataError, match=rf"^{file}, line {number}: {message}"):
        splits_of("inshop", tmp_path)


def test_a_list_that_ends_early(tmp_path: Path) -> None:
    inshop(tmp_path, [2, 2], [1, 1], [2, 1])
    file = tmp_path / "Eval" / "list_eval_partition.txt"
    file.write_text("\n".join(file.read_text().splitlines()[:-1]))
    with pytest.raises(DataError, match=rf"^{file}, line 1: '9' images are announced, 8 listed"):
        splits_of("inshop", tmp_path)


def test_missing_images(tmp_path: Path) -> None:
    inshop(tmp_path, [2, 2], [1, 1], [2, 1])
    folder = tmp_path / "Img" / "img/WOMEN/Dresses/id_00000001"
    (folder / "t00_1_front.jpg").unlink()
    with pytest.raises(
        DataError, match=rf"^1 of the 9 images that .* lists are missing: {folder}/t00_1_front.jpg: ext"
    ):
        splits_of("inshop", tmp_path)


def test_another_folder(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match=f"^{tmp_path} is no In-Shop Clothes: put there list_eval_partition"):
        splits_of("inshop", tmp_path)
