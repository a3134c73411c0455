"""Images that cannot be used, and images that are there twice."""

from __future__ import annotations

import io
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mdprop.data.audit import DIGEST_BYTES, SHOWN, Duplicate, digest, find_duplicates, notes
from mdprop.data.prepare import prepare
from mdprop.data.stores.images import ImageStore
from mdprop.errors import DataError
from tests.data.readers import trees
from tests.data.readers.blocks import settings
from tests.data.readers.packing import nothing_changes

MakeClasses = Callable[..., None]


@pytest.fixture
def root(tmp_path: Path, make_classes: MakeClasses) -> Path:
    """The classes a to c train, d to f test; four images in each."""
    make_classes(tmp_path / "raw", ["a", "b", "c", "d", "e", "f"], images=4)
    return tmp_path / "raw"


def run(root: Path, **options: Any) -> dict[str, Any]:
    changes = {key: options.pop(key) for key in ("mode", "resize", "encoding") if key in options}
    return prepare("x", settings("folder", root, **changes), root.parent / "out", **options)


def held(root: Path, split: str) -> list[str]:
    store = ImageStore(root.parent / "out" / f"{split}.arrow")
    return [store.path(row) for row in range(len(store))]


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


# --- images that cannot be used ---


def test_all_that_cannot_be_used_are_named_at_once(root: Path) -> None:
    spoil(root / "a" / "1.png")
    (root / "b" / "9.png").write_bytes(b"")
    (root / "e" / "2.png").write_text("no image")
    (root / "f" / "9.jpg").symlink_to("nowhere")
    with (
        nothing_changes(root.parent),
        pytest.raises(DataError, match=r"^4 of 26 images cannot be used: ") as caught,
    ):
        run(root)
    text = str(caught.value)
    for name, reason in {
        "a/1.png": "is corrupt or truncated",
        "b/9.png": "is an empty file",
        "e/2.png": "is corrupt or of no known format",
        "f/9.jpg": "cannot be read (No such file or directory)",
    }.items():
        assert f"image {root}/{name} {reason}" in text
    assert text.endswith(": mend or remove them, or leave them out with dataset.on_error=skip")
    assert "\n" not in text


def test_of_many_the_first_are_named(root: Path) -> None:
    for index in range(10, 40):
        (root / "d" / f"{index}.png").touch()
    with pytest.raises(DataError, match=r"^30 of 54 images cannot be used: .*; and 20 more: mend") as caught:
        run(root)
    assert str(caught.value).count("is an empty file") == SHOWN


def test_a_single_one_is_a_line_of_its_own(root: Path) -> None:
    (root / "d" / "2.png").write_bytes(b"")
    message = "is an empty file: replace or remove it; or leave it out with dataset.on_error=skip"
    with pytest.raises(DataError, match=f"^image {root}/d/2.png {message}$"):
        run(root)


@pytest.mark.parametrize("encoding", ["compressed", "raw"])
def test_they_are_left_out_and_listed(root: Path, encoding: str) -> None:
    whole = run(root, encoding=encoding)
    spoil(root / "a" / "0.png")
    spoil(root / "e" / "3.png")
    manifest = run(root, encoding=encoding, on_error="skip")
    assert [(image["split"], image["path"]) for image in manifest["skipped"]] == [
        ("train", "a/0.png"),
        ("test", "e/3.png"),
    ]
    assert all(image["reason"].startswith("is corrupt or truncated (") for image in manifest["skipped"])
    assert str(root) not in str(manifest["skipped"])
    expected = {"train": (11, 3, 4), "val": (0, 0, 0), "test": (11, 3, 4)}
    keys = ("images", "min_images_per_class", "max_images_per_class")
    assert {s: tuple(n[key] for key in keys) for s, n in manifest["splits"].items()} == expected
    assert "a/0.png" not in held(root, "train")
    stores = [ImageStore(root.parent / "out" / f"{split}.arrow") for split in expected]
    assert [number for store in stores for number in store.ids] == list(range(22))
    assert {split: n["classes"] for split, n in manifest["splits"].items()} == {
        split: n["classes"] for split, n in whole["splits"].items()
    }
    assert notes(manifest)[0].startswith(
        "2 image(s) left out, as they cannot be used: a/0.png (train) is corrupt"
    )


def test_they_are_left_out_as_if_they_had_never_been_there(root: Path) -> None:
    (root / "b" / "00.png").write_bytes(b"")
    skipped = run(root, on_error="skip")
    (root / "b" / "00.png").unlink()
    for on_error in ("stop", "skip"):
        clean = run(root, on_error=on_error)
        assert clean["skipped"] == []
        assert clean["splits"] == skipped["splits"]


@pytest.mark.parametrize(("name", "split"), [("b", "train"), ("f", "test")])
@pytest.mark.parametrize("left", [0, 1])
def test_a_class_with_too_few_left_is_refused(root: Path, name: str, split: str, left: int) -> None:
    for index in range(left, 4):
        spoil(root / name / f"{index}.png")
    spoil(root / "a" / "0.png")
    without = rf"the {5 - left} image\(s\) that cannot be used"
    message = rf"{without}, 1 class\(es\) have too few left: '{name}' of {split} "
    with (
        nothing_changes(root.parent),
        pytest.raises(DataError, match=rf"^without {message}\({left} of 4\): 2 or"),
    ):
        run(root, on_error="skip")


@pytest.mark.parametrize(("kind", "spoilt"), [("query", "q00"), ("gallery", "g00")])
def test_a_query_or_a_gallery_without_images_is_refused(tmp_path: Path, kind: str, spoilt: str) -> None:
    trees.inshop(tmp_path / "raw", [2, 2], [1, 2], [1, 2])
    split = "test" if kind == "query" else "gallery"
    path = next((tmp_path / "raw").rglob(f"id_00000002/{spoilt}*"))
    path.unlink()
    path.touch()
    options = {"on_error": "skip", "duplicates": "allow"}
    block = settings("inshop", tmp_path / "raw", mode="RGB", resize=3)
    with pytest.raises(
        DataError, match=rf"too few left: 'id_00000002' of {split} \(0 of 1\): 2 or more .*gallery"
    ):
        prepare("i", block, tmp_path / "out", **options)


# --- duplicates ---


def copied_as(path: Path, to: Path) -> None:
    """The pixels of an image in a file of another kind."""
    with Image.open(path) as image:
        image.save(to)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".ppm", ".gif", ".webp"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_an_image_of_two_splits_is_refused_in_whatever_file(root: Path, suffix: str, mode: str) -> None:
    if suffix == ".webp":
        Image.open(root / "a" / "0.png").convert("RGB").save(root / "e" / "z.webp", lossless=True)
    else:
        copied_as(root / "a" / "0.png", root / "e" / f"z{suffix}")
    message = rf"e/z{suffix} \(test\) = a/0.png \(train\): remove them from one of the two, or keep them with"
    with (
        nothing_changes(root.parent),
        pytest.raises(
            DataError, match=rf"^1 image\(s\) have the pixels of one in another split: {message} dataset\."
        ),
    ):
        run(root, mode=mode)


def test_a_jpeg_and_what_it_decodes_to(root: Path) -> None:
    Image.open(root / "a" / "0.png").resize((24, 18)).save(root / "a" / "0.jpg")
    copied_as(root / "a" / "0.jpg", root / "f" / "z.png")
    with pytest.raises(DataError, match=r"f/z.png \(test\) = a/0.jpg \(train\)"):
        run(root)


def test_an_image_turned_by_exif(root: Path) -> None:
    upright = Image.open(root / "a" / "0.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(root / "d" / "z.png", exif=exif)
    with pytest.raises(DataError, match=r"d/z.png \(test\) = a/0.png \(train\)"):
        run(root)


def test_what_differs_as_it_is_stored_is_no_duplicate(root: Path) -> None:
    one = np.array(Image.open(root / "a" / "0.png"))
    one[0, 0] ^= 1
    Image.fromarray(one).save(root / "d" / "z.png")
    assert run(root)["duplicates"]["pairs"] == []


def test_what_is_stored_alike_is_a_duplicate(root: Path) -> None:
    Image.new("L", (40, 40), 7).save(root / "b" / "z.png")
    Image.new("L", (80, 80), 7).save(root / "e" / "z.png")
    with pytest.raises(DataError, match=r"e/z.png \(test\) = b/z.png \(train\)"):
        run(root)


def test_every_test_image_a_copy(root: Path) -> None:
    for one, other in zip("abc", "def", strict=True):
        shutil.rmtree(root / other)
        shutil.copytree(root / one, root / other)
    with pytest.raises(
        DataError, match=r"^12 image\(s\) have the pixels of one in another split: .*; and 2 more: "
    ):
        run(root)


def test_the_key_allows_and_lists_them(root: Path) -> None:
    shutil.copy(root / "a" / "0.png", root / "a" / "z.png")
    shutil.copy(root / "a" / "0.png", root / "f" / "z.png")
    shutil.copy(root / "f" / "1.png", root / "e" / "z.png")
    manifest = run(root, duplicates="allow")
    assert manifest["duplicates"] == {
        "across_splits": 1,
        "within_splits": 2,
        "pairs": [
            {"split": "train", "path": "a/z.png", "same_as_split": "train", "same_as": "a/0.png"},
            {"split": "test", "path": "f/1.png", "same_as_split": "test", "same_as": "e/z.png"},
            {"split": "test", "path": "f/z.png", "same_as_split": "train", "same_as": "a/0.png"},
        ],
    }
    assert notes(manifest) == [
        "1 image(s) with the pixels of one in another split: f/z.png (test) = a/0.png (train)",
        "2 image(s) with the pixels of another of their split: a/z.png (train) = a/0.png (train); "
        "f/1.png (test) = e/z.png (test)",
    ]


def test_within_a_split_they_are_listed_only(root: Path) -> None:
    shutil.copy(root / "a" / "0.png", root / "b" / "z.png")
    manifest = run(root)
    assert (manifest["duplicates"]["within_splits"], manifest["duplicates"]["across_splits"]) == (1, 0)
    assert len(held(root, "train")) == 13


def test_validation_classes_are_a_split_too(root: Path) -> None:
    shutil.copy(root / "a" / "0.png", root / "c" / "z.png")
    run(root)
    with pytest.raises(DataError, match=r"c/z.png \(val\) = a/0.png \(train\)"):
        run(root, validation_classes=1)


def test_a_query_in_the_gallery_is_refused(tmp_path: Path) -> None:
    trees.inshop(tmp_path / "raw", [2, 2], [1, 1], [1, 1])
    for number, path in enumerate((tmp_path / "raw" / "Img").rglob("*.jpg")):
        path.unlink()
        noise = np.random.default_rng(number).integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    for path in (tmp_path / "raw" / "Img").rglob("q*.jpg"):
        shutil.copy(path, path.with_name(path.name.replace("q", "g", 1)))
    block = settings("inshop", tmp_path / "raw", mode="RGB", resize=3)
    with pytest.raises(
        DataError, match=r"^2 image\(s\) have .*g00_1_front.jpg \(gallery\) = .*q00_1_front.jpg \(test"
    ):
        prepare("i", block, tmp_path / "out")
    manifest = prepare("i", block, tmp_path / "out", duplicates="allow")
    assert manifest["duplicates"]["across_splits"] == 2


def test_what_is_left_out_takes_no_part(root: Path) -> None:
    (root / "a" / "00.png").touch()
    (root / "d" / "00.png").touch()
    shutil.copy(root / "a" / "3.png", root / "f" / "zz.png")
    with pytest.raises(DataError, match=r"^1 image\(s\) have .* f/zz.png \(test\) = a/3.png \(train\)"):
        run(root, on_error="skip")


def test_pairs_against_a_plain_search() -> None:
    chance = random.Random(0)
    words = [chance.randbytes(DIGEST_BYTES) for _ in range(40)]
    words += [words[0][:8] + words[1][8:], words[1][:8] + words[0][8:]]  # half alike
    for count in (0, 1, 2, 300):
        images = [chance.choice(words) for _ in range(count)]
        expected = [(at, images.index(image)) for at, image in enumerate(images) if images.index(image) < at]
        assert find_duplicates(b"".join(images)) == expected
    assert find_duplicates(bytearray(DIGEST_BYTES * 3)) == [(1, 0), (2, 0)]


def test_the_digest_is_of_size_and_pixels() -> None:
    image = Image.new("L", (4, 6), 3)
    assert digest(image) == digest(image.copy())
    assert len(digest(image)) == DIGEST_BYTES
    data = io.BytesIO()
    image.save(data, "PNG")
    assert digest(Image.open(data)) == digest(image)
    others = [Image.new("L", (6, 4), 3), Image.new("L", (4, 6), 4), Image.new("RGB", (4, 2), (3, 3, 3))]
    assert len({digest(other) for other in (image, *others)}) == 4


@pytest.mark.parametrize("manifest", [{}, {"skipped": 3, "duplicates": {"pairs": []}}, {"skipped": [{}]}])
def test_a_manifest_of_another_version(manifest: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"^manifest.json is of another version: run dvc repro prepare$"):
        notes(manifest)


def test_a_pair_as_text() -> None:
    assert str(Duplicate("test", "b/1.png", "train", "a/0.png")) == "b/1.png (test) = a/0.png (train)"
