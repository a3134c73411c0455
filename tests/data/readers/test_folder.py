from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mdprop.data.readers.entries import Classes, Entry, entries_of, make_splits
from mdprop.errors import DataError
from tests.data.readers.blocks import splits_of

MakeClasses = Callable[..., None]
NAMES = ["a", "b", "c", "d", "e", "f"]


def names(splits: dict[str, Classes]) -> dict[str, list[str]]:
    return {split: list(classes) for split, classes in splits.items()}


def entries(classes: Classes) -> list[Entry]:
    return list(entries_of(classes))


def test_train_and_test_folders(tmp_path: Path, make_classes: MakeClasses) -> None:
    make_classes(tmp_path / "train", ["b", "a", "c", "d"])
    make_classes(tmp_path / "test", ["x", "y"], images=3)
    splits = splits_of("folder", tmp_path)
    assert names(splits) == {"train": ["a", "b", "c", "d"], "test": ["x", "y"]}
    assert [e.path for e in entries(splits["test"])] == [f"test/{c}/{i}.png" for c in "xy" for i in range(3)]


def test_a_val_folder(tmp_path: Path, make_classes: MakeClasses) -> None:
    for split, classes in {"train": ["a", "b"], "val": ["m"], "test": ["x", "y"]}.items():
        make_classes(tmp_path / split, classes)
    assert names(splits_of("folder", tmp_path)) == {"train": ["a", "b"], "val": ["m"], "test": ["x", "y"]}


def test_the_layout_of_cub(tmp_path: Path, make_classes: MakeClasses) -> None:
    make_classes(tmp_path / "images", ["002.B", "001.A", "004.D", "003.C"])
    (tmp_path / "attributes").mkdir()
    (tmp_path / "images.txt").write_text("1 001.A/0.png\n")
    splits = splits_of("folder", tmp_path)
    assert names(splits) == {"train": ["001.A", "002.B"], "test": ["003.C", "004.D"]}
    assert entries(splits["train"])[0].path == "images/001.A/0.png"


def test_a_folder_a_class(tmp_path: Path, make_classes: MakeClasses) -> None:
    make_classes(tmp_path, [*NAMES, "g"])
    assert names(splits_of("folder", tmp_path)) == {
        "train": ["a", "b", "c"],
        "test": ["d", "e", "f", "g"],
    }


def test_a_class_may_be_called_train(tmp_path: Path, make_classes: MakeClasses) -> None:
    make_classes(tmp_path, ["car", "images", "plane", "train"])
    assert names(splits_of("folder", tmp_path)) == {
        "train": ["car", "images"],
        "test": ["plane", "train"],
    }


def test_entries_read_their_image_after_pickling(tmp_path: Path, make_classes: MakeClasses) -> None:
    make_classes(tmp_path, NAMES)
    entry = pickle.loads(pickle.dumps(splits_of("folder", tmp_path)["train"]["a"][1]))
    image = entry.read()
    assert (entry.path, image.size) == ("a/1.png", (8, 6))
    assert image.getpixel((0, 0)) == Image.open(tmp_path / "a" / "1.png").getpixel((0, 0))


def test_what_counts_as_an_image(tmp_path: Path, make_classes: MakeClasses) -> None:
    make_classes(tmp_path, NAMES)
    folder = tmp_path / "a"
    nested = folder / "more" / "deep"
    nested.mkdir(parents=True)
    for name in ("2.JPEG", "3.Png", "4.tif", "more/5.webp", "more/deep/6.GIF"):
        (folder / name).write_bytes(b"x")
    for name in (".7.png", "readme.txt", "Thumbs.db", "noextension", "8.npy"):
        (folder / name).write_bytes(b"x")
    for litter in (".cache", "__MACOSX", "@eaDir", ".AppleDouble", ".thumbnails", "$RECYCLE.BIN", "#recycle"):
        for hidden in (folder / litter, tmp_path / litter, folder / "more" / litter):
            hidden.mkdir()
            (hidden / "9.png").write_bytes(b"x")
    found = [e.path for e in splits_of("folder", tmp_path)["train"]["a"]]
    assert found == [
        f"a/{n}" for n in ("0.png", "1.png", "2.JPEG", "3.Png", "4.tif", "more/5.webp", "more/deep/6.GIF")
    ]


def test_links_are_followed_out_of_the_root_but_not_in_circles(
    tmp_path: Path, make_classes: MakeClasses
) -> None:
    root = tmp_path / "root"
    make_classes(root, ["a", "b", "c"])
    make_classes(tmp_path / "elsewhere", ["d"])
    (root / "d").symlink_to(tmp_path / "elsewhere" / "d", target_is_directory=True)
    (root / "a" / "2.png").symlink_to(tmp_path / "elsewhere" / "1.png")
    (root / "a" / "more").symlink_to(tmp_path / "more", target_is_directory=True)
    make_classes(tmp_path, ["more"])
    splits = splits_of("folder", root)
    assert names(splits)["test"] == ["c", "d"]
    assert [e.path for e in splits["train"]["a"]] == [
        f"a/{name}.png" for name in ("0", "1", "2", "more/0", "more/1")
    ]
    (root / "a" / "loop").symlink_to(root / "a", target_is_directory=True)
    with pytest.raises(DataError, match=rf"^{root}/a/loop is a link to {root}/a, which is read as part of"):
        splits_of("folder", root)


@pytest.mark.skipif(os.name == "nt" or os.uname().sysname == "Darwin", reason="names are Unicode there")
def test_names_that_are_not_unicode(tmp_path: Path, make_classes: MakeClasses) -> None:
    make_classes(tmp_path, ["a", "b", "c"])
    (tmp_path / "c").rename(
        os.path.join(os.fsencode(tmp_path), b"caf\xe9").decode("utf-8", "surrogateescape")
    )
    make_classes(tmp_path, ["d"])
    splits = splits_of("folder", tmp_path)
    assert names(splits)["test"] == ["caf\\xe9", "d"]
    assert entries(splits["test"])[0].path == "caf\\xe9/0.png"
    assert entries(splits["test"])[0].read().size == (8, 6)


def test_a_missing_root(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=rf"^datasets\.cub\.root = {tmp_path}/gone does not exist: put images there"
    ):
        splits_of("folder", tmp_path / "gone", "datasets.cub")


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file is no folder: put images there"):
        splits_of("folder", tmp_path / "file")


def test_an_empty_root(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"^{tmp_path} holds no folder a class: sort the images into"):
        splits_of("folder", tmp_path)


def test_images_without_class_folders(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(
        DataError, match=f"^{tmp_path} holds images, but no folder a class: sort the images into"
    ):
        splits_of("folder", tmp_path)


def test_train_without_test(tmp_path: Path, make_classes: MakeClasses) -> None:
    make_classes(tmp_path / "train", NAMES)
    with pytest.raises(DataError, match=f"^{tmp_path}/test does not exist: sort the images into"):
        splits_of("folder", tmp_path)


def test_too_few_classes(tmp_path: Path, make_classes: MakeClasses) -> None:
    make_classes(tmp_path, ["a", "b", "c"])
    with pytest.raises(DataError, match=r"has 3 class folder\(s\); 4 or more are needed.*datasets\.x\.root"):
        splits_of("folder", tmp_path, "datasets.x")


@pytest.mark.parametrize(("images", "count"), [(0, "no"), (1, "1")])
def test_a_class_that_is_too_small(
    tmp_path: Path, make_classes: MakeClasses, images: int, count: str
) -> None:
    make_classes(tmp_path, ["a", "b", "d"])
    make_classes(tmp_path, ["c"], images=images)
    with pytest.raises(
        DataError, match=rf"^class folder {tmp_path}/c has {count} image\(s\); 2 or more are needed"
    ):
        splits_of("folder", tmp_path)


def test_a_class_in_two_splits(tmp_path: Path, make_classes: MakeClasses) -> None:
    make_classes(tmp_path / "train", ["a", "b"])
    make_classes(tmp_path / "test", ["b", "c"])
    with pytest.raises(
        DataError, match="class 'b' is in train and in test, but retrieval is tested on unseen"
    ):
        make_splits(splits_of("folder", tmp_path))


def test_a_folder_that_cannot_be_listed(
    tmp_path: Path, make_classes: MakeClasses, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_classes(tmp_path, NAMES)
    listed = os.scandir

    def scandir(folder: str) -> Any:
        if Path(folder).name == "c":
            raise PermissionError(13, "Permission denied", folder)
        return listed(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=rf"^{tmp_path}/c cannot be listed \(Permission denied\): check its"):
        splits_of("folder", tmp_path)
