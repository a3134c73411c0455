"""What lies in folders of images besides images: links, litter, devices, other systems' names."""

from __future__ import annotations

import os
import shutil
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from mdprop.data.prepare import prepare
from mdprop.data.readers.entries import make_splits
from mdprop.data.readers.tree import DEEPEST
from mdprop.errors import DataError
from tests.data.readers.blocks import settings, splits_of

MakeClasses = Callable[..., None]

# How a data set of each reader that walks folders is laid out: the folders of its classes a, b, c and d.
LAYOUTS = {
    "folder": ["a", "b", "c", "d"],
    "split": ["train/a", "train/b", "test/c", "test/d"],
    "omniglot": [
        *(f"images_background/G/{name}" for name in "ab"),
        *(f"images_evaluation/H/{name}" for name in "cd"),
    ],
    "cub200": ["images/a", "images/b", "images/c", "images/d"],
    "cars196": ["train/a", "train/b", "test/c", "test/d"],
}


def reader(layout: str) -> str:
    return "folder" if layout == "split" else layout


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def classes(tmp_path: Path, make_classes: MakeClasses, layout: str) -> list[Path]:
    """The folders of four classes of two images, below tmp_path/root."""
    folders = [tmp_path / "root" / place for place in LAYOUTS[layout]]
    for folder in folders:
        make_classes(folder.parent, [folder.name])
    return folders


def read(tmp_path: Path, layout: str) -> list[str]:
    """The paths of all images that are found."""
    splits = splits_of(reader(layout), tmp_path / "root")
    return [entry.path for c in splits.values() for entries in c.values() for entry in entries]


def refused(tmp_path: Path, layout: str, message: str) -> None:
    start = time.monotonic()
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, layout)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(
    "target",
    ["itself", "its split", "the root", "above the root", "another class", "below another class", "/"],
)
def test_a_link_into_or_around_the_data_is_refused(
    tmp_path: Path, layout: str, classes: list[Path], target: str, deep: bool
) -> None:
    (classes[3] / "nested").mkdir()
    lead = {
        "itself": classes[0],
        "its split": classes[0].parent,
        "the root": tmp_path / "root",
        "above the root": tmp_path,
        "another class": classes[3],
        "below another class": classes[3] / "nested",
        "/": Path("/"),
    }[target]
    place = classes[0] / "deep" if deep else classes[0]
    place.mkdir(exist_ok=True)
    (place / "link").symlink_to(lead, target_is_directory=True)
    refused(
        tmp_path,
        layout,
        rf"^{place}/link is a link to \S+, which (holds|is read as part of) .*remove the link$",
    )


def test_a_link_to_an_image_of_another_class_is_refused(
    tmp_path: Path, layout: str, classes: list[Path]
) -> None:
    (classes[0] / "2.png").symlink_to(classes[3] / "0.png")
    refused(tmp_path, layout, rf"^{classes[0]}/2.png is a link to .*, which is read as part of {classes[3]}")


def test_a_class_that_is_a_link_to_another_is_refused(
    tmp_path: Path, layout: str, classes: list[Path]
) -> None:
    link = classes[3].with_name("0")
    link.symlink_to(classes[0], target_is_directory=True)
    refused(tmp_path, layout, rf"^{link} is a link to {classes[0]}, which is read as part of {classes[0]}")


def test_two_links_to_one_folder_are_refused(tmp_path: Path, layout: str, classes: list[Path]) -> None:
    shutil.copytree(classes[0], tmp_path / "pool" / "deep")
    (classes[0] / "more").symlink_to(tmp_path / "pool" / "deep", target_is_directory=True)
    assert len(read(tmp_path, layout)) == 10
    (classes[3] / "more").symlink_to(tmp_path / "pool", target_is_directory=True)
    refused(
        tmp_path, layout, rf"^{classes[3]}/more is a link to {tmp_path}/pool, which holds {classes[0]}/more"
    )


def test_links_to_elsewhere_are_followed(tmp_path: Path, layout: str, classes: list[Path]) -> None:
    shutil.move(classes[0], tmp_path / "pool")
    classes[0].symlink_to(tmp_path / "pool", target_is_directory=True)
    (classes[1] / "2.png").symlink_to(shutil.copy(classes[1] / "0.png", tmp_path / "elsewhere.png"))
    assert sorted(read(tmp_path, layout)) == sorted(
        path.relative_to(tmp_path / "root").as_posix() for folder in classes for path in folder.iterdir()
    )


@pytest.mark.parametrize("place", ["class", "nested"])
def test_a_broken_link_to_a_folder_is_refused(
    tmp_path: Path, layout: str, classes: list[Path], place: str
) -> None:
    link = classes[0].with_name("gone") if place == "class" else classes[0] / "gone"
    link.symlink_to(tmp_path / "nowhere")
    refused(
        tmp_path, layout, rf"^{link} is a link to {tmp_path}/nowhere, which cannot be reached \(No such file"
    )


def test_a_link_to_itself_is_refused(tmp_path: Path, layout: str, classes: list[Path]) -> None:
    (classes[0] / "self").symlink_to(classes[0] / "self")
    refused(
        tmp_path, layout, rf"^{classes[0]}/self is a link to .*cannot be reached \(Too many levels of symb"
    )


def test_folders_that_nest_too_deep_are_refused(tmp_path: Path, layout: str, classes: list[Path]) -> None:
    depth = 1100 if layout == "folder" else DEEPEST + 1
    here = os.open(classes[2], os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("n", dir_fd=here)
        here, above = os.open("n", os.O_RDONLY, dir_fd=here), here
        os.close(above)
    os.close(here)
    try:
        refused(tmp_path, layout, rf"^{classes[2]} holds folders more than {DEEPEST} deep: flatten or remove")
    finally:
        os.rename(classes[2] / "n", tmp_path / "n")
        flatten(tmp_path / "n")


def flatten(folder: Path) -> None:
    """Remove a chain of folders that is too long for a path; its way of removal recurses in Python 3.10."""
    while (folder / "n").exists():
        os.rename(folder / "n", folder.with_name("m"))
        os.rmdir(folder)
        os.rename(folder.with_name("m"), folder)


def test_folders_may_nest(tmp_path: Path, layout: str, classes: list[Path]) -> None:
    deep = classes[0].joinpath(*["n"] * DEEPEST)
    deep.mkdir(parents=True)
    shutil.copy(classes[0] / "0.png", deep)
    assert len(read(tmp_path, layout)) == 9


@pytest.mark.parametrize(
    "litter",
    [
        "@eaDir",
        ".AppleDouble",
        "__MACOSX",
        ".thumbnails",
        "$RECYCLE.BIN",
        "$Recycle.Bin",
        "#recycle",
        "@Recycle",
        "lost+found",
        "System Volume Information",
        ":2eDS_Store",
        "Thumbs.db",
    ],
)
def test_litter_is_passed_over(tmp_path: Path, layout: str, classes: list[Path], litter: str) -> None:
    before = read(tmp_path, layout)
    for parent in (tmp_path / "root", classes[0].parent, classes[0], classes[3]):
        (parent / litter).mkdir(exist_ok=True)
        for name in ("9.png", "SYNOPHOTO_THUMB_M.jpg"):
            shutil.copy(classes[0] / "0.png", parent / litter / name)
    assert read(tmp_path, layout) == before


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder"])
def test_what_is_no_regular_file_is_never_opened(
    tmp_path: Path, layout: str, classes: list[Path], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = classes[0] / "9.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    else:
        monkeypatch.chdir(classes[0])  # a socket's path must be short
        os.mknod("9.png", 0o140600)
    block = settings(reader(layout), tmp_path / "root")
    if kind == "folder":
        prepare("x", block, tmp_path / "out")
        return
    with pytest.raises(DataError, match=rf"^image {path} is no regular file: remove it; or leave it out"):
        prepare("x", block, tmp_path / "out")


@pytest.mark.parametrize(
    ("one", "other"), [("Cat", "cat"), ("é", "e\u0301"), ("STRASSE", "straße"), ("Å", "å")]
)
@pytest.mark.parametrize("apart", [False, True])
def test_names_that_differ_by_case_or_spelling(
    tmp_path: Path, layout: str, classes: list[Path], one: str, other: str, apart: bool
) -> None:
    assert one != other
    classes[0].rename(classes[0].with_name(one))
    second = classes[2 if apart else 1]
    if unicodedata.normalize("NFC", one) == one and second.with_name(other).exists():
        pytest.skip("this file system takes the two for one")
    second.rename(second.with_name(other))
    if layout == "omniglot":
        if apart:
            return  # the alphabets, which are in the names, differ
        one, other = f"G/{one}", f"G/{other}"
    with pytest.raises(DataError, match="differ only by case or by how Unicode spells") as caught:
        make_splits(splits_of(reader(layout), tmp_path / "root") | {"val": {}})
    assert ascii(one) in str(caught.value)
    assert ascii(other) in str(caught.value)
    assert str(caught.value).isascii()


def test_all_small_classes_are_counted(tmp_path: Path, make_classes: MakeClasses) -> None:
    make_classes(tmp_path, ["a", "b"])
    make_classes(tmp_path, ["c", "d"], images=1)
    make_classes(tmp_path, ["e"], images=0)
    with pytest.raises(
        DataError,
        match=r"c has 1 image\(s\), and 2 more class folder\(s\) have fewer than 2; 2 or more are needed",
    ):
        splits_of("folder", tmp_path)
