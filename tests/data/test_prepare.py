from __future__ import annotations

import io
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from torch import Tensor

import mdprop.data.packing
from mdprop.data.images import decode
from mdprop.data.packing import Encoded, encode_entry
from mdprop.data.prepare import prepare
from mdprop.data.readers import glyphs
from mdprop.data.readers.entries import Entry
from mdprop.data.readers.settings import ImageSettings
from mdprop.data.stores.images import ImageStore
from mdprop.errors import DataError, DiskError
from mdprop.files import read_sealed_json
from tests.data.readers import trees
from tests.data.readers.blocks import IMAGES, settings
from tests.data.readers.packing import nothing_changes

MakeClasses = Callable[..., None]
SPLITS = ("train", "val", "test")


def folder_settings(root: Path, **changes: object) -> ImageSettings:
    return settings("folder", root, **changes)


def held(store: ImageStore) -> list[str]:
    return [store.path(row) for row in range(len(store))]


def photo(width: int, height: int, channels: int = 3) -> Image.Image:
    rng = np.random.default_rng(width * height)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 6, channels)).astype(np.uint8).squeeze())
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def encoded(tmp_path: Path) -> tuple[bytes, str]:
    """The bytes and the format of the first image of a prepared data set."""
    with pa.memory_map(str(tmp_path / "out" / "train.arrow")) as source:
        data = pa.ipc.open_file(source).read_all()["image"][0].as_py()
    return data, Image.open(io.BytesIO(data)).format or ""


def shown(image: Tensor) -> np.ndarray:
    """As numpy shows Pillow's images: [H, W] or [H, W, C]."""
    return image.permute(1, 2, 0).numpy().squeeze()


@pytest.fixture
def root(tmp_path: Path, make_classes: MakeClasses) -> Path:
    make_classes(tmp_path / "raw", ["a", "b", "c", "d", "e", "f"], images=3)
    return tmp_path / "raw"


def prepare_first(
    tmp_path: Path, root: Path, image: Image.Image, name: str, save: dict[str, Any], **changes: Any
) -> bytes:
    """Prepare a data set that begins with `image`; return the bytes of the file as it was."""
    image.save(root / "a" / name, **save)
    prepare("x", folder_settings(root, **changes), tmp_path / "out")
    return (root / "a" / name).read_bytes()


def test_a_folder_is_packed(tmp_path: Path, root: Path) -> None:
    manifest = prepare("x", folder_settings(root), tmp_path / "out", validation_classes=1)
    stores = {split: ImageStore(tmp_path / "out" / f"{split}.arrow") for split in SPLITS}
    assert {s: list(store.class_names.items()) for s, store in stores.items()} == {
        "train": [(0, "a"), (1, "b")],
        "val": [(2, "c")],
        "test": [(3, "d"), (4, "e"), (5, "f")],
    }
    assert [i for s in SPLITS for i in stores[s].ids] == list(range(18))
    for store in stores.values():
        for row in range(len(store)):
            original = Image.open(root / store.path(row))
            np.testing.assert_array_equal(shown(store.image(row)), np.asarray(original))
            assert store.path(row).startswith(store.class_names[int(store.labels[row])])
    for kind in ("sha256", "digest"):
        assert len({manifest["splits"][split].pop(kind) for split in SPLITS}) == 3
    assert manifest == {
        "name": "x",
        "settings": {
            "reader": "folder",
            "root": str(root),
            "mode": "L",
            "resize": 6,
            "encoding": "compressed",
            "validation_classes": 1,
            "evaluate": "test",
            "train_fraction": 1.0,
            "fraction_of": "images",
        },
        "splits": {
            split: {
                "images": 3 * classes,
                "classes": classes,
                "min_images_per_class": 3,
                "max_images_per_class": 3,
            }
            for split, classes in zip(SPLITS, (2, 1, 3), strict=True)
        },
        "skipped": [],
        "duplicates": {"across_splits": 0, "within_splits": 0, "pairs": []},
    }


def test_the_manifest_is_what_is_returned(tmp_path: Path, root: Path) -> None:
    (root / "b" / "0.png").unlink()
    manifest = prepare("x", folder_settings(root), tmp_path / "out")
    assert read_sealed_json(tmp_path / "out" / "manifest.json", "prepare it") == manifest
    assert manifest["splits"]["train"]["min_images_per_class"] == 2
    assert manifest["splits"]["val"]["images"] == manifest["splits"]["val"]["max_images_per_class"] == 0
    assert len(ImageStore(tmp_path / "out" / "val.arrow")) == 0


@pytest.mark.parametrize("encoding", ["compressed", "raw"])
def test_the_same_data_give_the_same_bytes(tmp_path: Path, root: Path, encoding: str) -> None:
    for out in ("one", "two"):
        prepare("x", folder_settings(root, resize=9, encoding=encoding), tmp_path / out)
    for file in ("train.arrow", "val.arrow", "test.arrow", "manifest.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_the_digest_follows_the_content(tmp_path: Path, root: Path) -> None:
    block = folder_settings(root)
    before = prepare("x", block, tmp_path / "out", validation_classes=1)["splits"]
    Image.new("L", (8, 6), 1).save(root / "f" / "0.png")
    after = prepare("x", block, tmp_path / "out", validation_classes=1)["splits"]
    assert {s: before[s]["sha256"] == after[s]["sha256"] for s in SPLITS} == {
        "train": True,
        "val": True,
        "test": False,
    }


@pytest.mark.parametrize(
    ("name", "save"),
    [("0.jpg", {"quality": 60}), ("0.png", {"compress_level": 1}), ("0.JPEG", {"progressive": True})],
)
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_an_image_that_fits_keeps_its_bytes(
    tmp_path: Path, root: Path, name: str, save: dict[str, Any], mode: str
) -> None:
    source = prepare_first(tmp_path, root, photo(24, 18, len(mode)), name, save, mode=mode, resize=18)
    assert encoded(tmp_path)[0] == source


@pytest.mark.parametrize(
    ("image", "name", "save"),
    [
        (photo(24, 18).convert("L"), "0.jpg", {}),  # mode
        (photo(24, 20), "0.jpg", {}),  # size
        (
            photo(24, 18),
            "0.jpg",
            {"exif": b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x03\0\0\0\0\0\0\0"},
        ),
        (photo(24, 18), "0.png", {"transparency": (255, 0, 0)}),
        (photo(24, 18), "0.bmp", {}),  # format
    ],
)
def test_an_image_that_does_not_fit_is_encoded_anew(
    tmp_path: Path, root: Path, image: Image.Image, name: str, save: dict[str, Any]
) -> None:
    source = prepare_first(tmp_path, root, image, name, save, mode="RGB", resize=18)
    data, kind = encoded(tmp_path)
    assert data != source
    assert kind == ("JPEG" if name == "0.jpg" else "PNG")
    assert Image.open(io.BytesIO(data)).mode == "RGB"
    assert ImageStore(tmp_path / "out" / "train.arrow").image(0).shape[0] == 3


def test_a_png_of_16_bits_a_channel(tmp_path: Path, root: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (6, 8, 3)).astype(">u2")
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", 8, 6, 16, 2, 0, 0, 0),
        b"IDAT": zlib.compress(b"".join(b"\0" + row.tobytes() for row in deep)),
        b"IEND": b"",
    }
    path = root / "a" / "0.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks.items()
        )
    )
    assert Image.open(path).mode == "RGB"
    prepare("x", folder_settings(root, mode="RGB"), tmp_path / "out")
    stored = ImageStore(tmp_path / "out" / "train.arrow").image(0)
    np.testing.assert_array_equal(shown(stored), np.asarray(Image.open(path)))
    np.testing.assert_allclose(shown(stored), deep / 257, atol=1)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("name", ["0.jpg", "0.png", "0.bmp"])
@pytest.mark.parametrize("size", [(24, 18), (31, 40)])
def test_raw_images_are_the_resized_pixels(
    tmp_path: Path, root: Path, mode: str, name: str, size: tuple[int, int]
) -> None:
    prepare_first(tmp_path, root, photo(*size), name, {}, mode=mode, resize=18, encoding="raw")
    source = Image.open(root / "a" / name).convert(mode)
    expected = source.resize((24, 18) if size == (24, 18) else (18, 23), Image.Resampling.BICUBIC)
    stored = ImageStore(tmp_path / "out" / "train.arrow").image(0)
    assert stored.shape == (len(mode), expected.height, expected.width)
    np.testing.assert_array_equal(shown(stored), np.asarray(expected))
    assert len(encoded(tmp_path)[0]) == stored.numel() + len(b"P5\n24 18\n255\n")


def test_jpegs_are_stored_with_full_chroma_and_high_quality(tmp_path: Path, root: Path) -> None:
    prepare_first(
        tmp_path, root, photo(60, 48), "0.jpg", {"quality": 98, "subsampling": 0}, mode="RGB", resize=24
    )
    stored = Image.open(io.BytesIO(encoded(tmp_path)[0]))
    expected = Image.open(root / "a" / "0.jpg").resize((30, 24), Image.Resampling.BICUBIC)
    assert stored.layer[0][1:3] == (1, 1)  # the sampling factors of luma
    np.testing.assert_allclose(np.asarray(stored).astype(int), np.asarray(expected).astype(int), atol=12)
    np.testing.assert_array_equal(
        shown(ImageStore(tmp_path / "out" / "train.arrow").image(0)), np.asarray(stored)
    )


@pytest.mark.parametrize(
    ("size", "stored"), [((40, 20), (20, 10)), ((20, 41), (10, 20)), ((5, 4), (12, 10)), ((10, 10), (10, 10))]
)
def test_the_short_side_is_resized(
    tmp_path: Path, root: Path, size: tuple[int, int], stored: tuple[int, int]
) -> None:
    image = photo(*size, 1)
    prepare_first(tmp_path, root, image, "0.png", {}, resize=10)
    read = shown(ImageStore(tmp_path / "out" / "train.arrow").image(0))
    assert read.shape[::-1] == stored
    np.testing.assert_array_equal(read, np.asarray(image.resize(stored, Image.Resampling.BICUBIC)))


def test_resizing_does_not_alias() -> None:
    stripes = Image.fromarray(np.tile(np.array([0, 255], np.uint8), (64, 32)))
    data = encode_entry(Entry("a", "a/0", lambda name: stripes), "L", 8, "raw").image
    assert np.ptp(decode(data, "L").numpy().astype(int)) < 10


def test_an_elongated_image_is_refused(tmp_path: Path, root: Path) -> None:
    with pytest.raises(
        DataError, match=r"^image a/0.png of 2000x1 pixels is too elongated .*: crop or remove it; or leave"
    ):
        prepare_first(tmp_path, root, Image.new("L", (2000, 1)), "0.png", {}, resize=64)


def test_glyphs_are_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"train": "AB", "val": "ΔΛ", "test": "ԱԲ"}
    characters = {split: [("SCRIPT", char) for char in few[split]] for split in few}
    monkeypatch.setattr(glyphs, "characters", lambda: characters)
    images = {**IMAGES, "mode": "RGB", "resize": 16, "mean": [0.5] * 3, "std": [0.5] * 3}
    drawing = {"reader": "glyphs", "seed": 3, "images_per_class": 2, "difficulty": 1.0}
    manifest = prepare("glyphs", glyphs.Settings.model_validate({**images, **drawing}), tmp_path / "out")
    assert {split: manifest["splits"][split]["images"] for split in SPLITS} == {
        "train": 4,
        "val": 4,
        "test": 4,
    }
    drawn = np.asarray(glyphs.draw("Ա", 1, seed=3, difficulty=1.0, size=16))
    stored = shown(ImageStore(tmp_path / "out" / "test.arrow").image(1))
    np.testing.assert_array_equal(stored, np.stack([drawn] * 3, -1))


def test_omniglot_is_packed(tmp_path: Path, make_classes: MakeClasses) -> None:
    make_classes(tmp_path / "raw" / "images_background", ["G/character01", "G/character02", "L/character01"])
    make_classes(tmp_path / "raw" / "images_evaluation", ["A/character01", "A/character02"])
    prepare("o", settings("omniglot", tmp_path / "raw"), tmp_path / "out", validation_classes=1)
    assert ImageStore(tmp_path / "out" / "val.arrow").class_names == {2: "L/character01"}


def published_settings(reader: str, root: Path, **changes: object) -> ImageSettings:
    return settings(reader, root, **{"mode": "RGB", "resize": 3, **changes})


@pytest.mark.parametrize("reader", ["cub200", "cars196", "sop"])
def test_published_data_are_packed(tmp_path: Path, reader: str) -> None:
    raw = tmp_path / "raw"
    if reader == "cub200":
        trees.cub200(raw, [2, 3, 4, 2, 2, 3])
    elif reader == "cars196":
        trees.cars_annotated(raw, [2, 3, 4, 2, 2, 3])
    else:
        trees.sop(raw, [2, 3, 4], [2, 2, 3])
    manifest = prepare(
        "p", published_settings(reader, raw), tmp_path / "out", validation_classes=1, duplicates="allow"
    )
    assert {s: (n["images"], n["classes"]) for s, n in manifest["splits"].items()} == {
        "train": (5, 2) if reader != "cars196" else (7, 2),
        "val": (4, 1) if reader != "cars196" else (2, 1),  # the names of the cars go backwards
        "test": (7, 3),
    }
    assert manifest["settings"]["check_counts"] is False
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "manifest.json",
        "test.arrow",
        "train.arrow",
        "val.arrow",
    ]


def test_queries_and_gallery_are_packed(tmp_path: Path) -> None:
    trees.inshop(tmp_path / "raw", [1, 2, 3, 2], [1, 2], [3, 1])
    block = published_settings("inshop", tmp_path / "raw")
    manifest = prepare("i", block, tmp_path / "out", validation_classes=1, duplicates="allow")
    assert list(manifest["splits"]) == ["train", "val", "test", "gallery"]
    stores = {split: ImageStore(tmp_path / "out" / f"{split}.arrow") for split in manifest["splits"]}
    assert {split: len(store) for split, store in stores.items()} == {
        "train": 6,
        "val": 2,
        "test": 3,
        "gallery": 4,
    }
    assert [i for store in stores.values() for i in store.ids] == list(range(15))
    assert stores["test"].class_names == stores["gallery"].class_names
    assert stores["test"].labels.tolist() == [4, 5, 5]
    assert stores["gallery"].labels.tolist() == [4, 4, 4, 5]
    assert {Path(path).name[0] for path in held(stores["test"])} == {"q"}
    assert {Path(path).name[0] for path in held(stores["gallery"])} == {"g"}


def test_a_data_set_without_a_gallery_loses_the_old_one(tmp_path: Path, root: Path) -> None:
    trees.inshop(tmp_path / "clothes", [2, 2], [1, 1], [1, 1])
    block = published_settings("inshop", tmp_path / "clothes")
    prepare("i", block, tmp_path / "out", duplicates="allow")
    assert (tmp_path / "out" / "gallery.arrow").exists()
    prepare("x", folder_settings(root), tmp_path / "out")
    assert not (tmp_path / "out" / "gallery.arrow").exists()


def test_counts_are_checked_before_anything_is_taken_away(tmp_path: Path) -> None:
    trees.cub200(tmp_path / "raw", [2, 3, 4, 2])
    block = published_settings("cub200", tmp_path / "raw", check_counts=True)
    with pytest.raises(
        DataError, match="has 5 images of 2 classes for train, published are 5,864 of 100; it"
    ):
        prepare("c", block, tmp_path / "out", validation_classes=1, train_fraction=0.5)


@pytest.mark.parametrize("fraction_of", ["images", "classes"])
def test_a_fraction_of_the_training_images(
    tmp_path: Path, make_classes: MakeClasses, fraction_of: str
) -> None:
    make_classes(tmp_path / "raw" / "train", ["a", "b", "c", "d", "e"], images=8)
    make_classes(tmp_path / "raw" / "test", ["x", "y"], images=8)
    block = folder_settings(tmp_path / "raw")
    full = prepare("x", block, tmp_path / "full", validation_classes=1)
    few = prepare(
        "x", block, tmp_path / "few", validation_classes=1, train_fraction=0.5, fraction_of=fraction_of
    )
    train = few["splits"]["train"]
    assert (train["images"], train["classes"]) == ((16, 4) if fraction_of == "images" else (16, 2))
    assert few["settings"]["train_fraction"] == 0.5
    assert few["settings"]["fraction_of"] == fraction_of
    for split in ("val", "test"):
        one, other = (held(ImageStore(tmp_path / out / f"{split}.arrow")) for out in ("full", "few"))
        assert one == other
        assert few["splits"][split]["images"] == full["splits"][split]["images"]


def test_a_val_folder_wins_over_validation_classes(tmp_path: Path, make_classes: MakeClasses) -> None:
    for split, classes in {"train": ["a", "b"], "val": ["m"], "test": ["x", "y"]}.items():
        make_classes(tmp_path / "raw" / split, classes)
    prepare("x", folder_settings(tmp_path / "raw"), tmp_path / "out", validation_classes=99)
    assert ImageStore(tmp_path / "out" / "val.arrow").class_names == {2: "m"}


def test_validation_classes_in_place_of_the_test_ones(tmp_path: Path, make_classes: MakeClasses) -> None:
    make_classes(tmp_path / "raw", [*"abcdefgh"])
    block = folder_settings(tmp_path / "raw")
    prepare("x", block, tmp_path / "out", validation_classes=2, evaluate="validation")
    classes = {s: [*ImageStore(tmp_path / "out" / f"{s}.arrow").class_names.values()] for s in SPLITS}
    assert classes == {"train": ["a", "b"], "val": [], "test": ["c", "d"]}
    for test_image in (tmp_path / "raw" / "e").iterdir():
        test_image.write_bytes(b"not looked at")
    prepare("x", block, tmp_path / "out", validation_classes=2, evaluate="validation")


@pytest.mark.parametrize("classes", [0, 1])
def test_too_few_validation_classes_to_measure_on(root: Path, tmp_path: Path, classes: int) -> None:
    block = folder_settings(root)
    with pytest.raises(DataError, match=rf"^dataset\.evaluate = validation: {classes} validation class"):
        prepare("x", block, tmp_path / "out", validation_classes=classes, evaluate="validation")


def test_too_many_validation_classes(tmp_path: Path, root: Path) -> None:
    with pytest.raises(DataError, match=r"^dataset\.validation_classes = 2: allowed are 0 to 1, "):
        prepare("x", folder_settings(root), tmp_path / "out", validation_classes=2)


def test_a_missing_root_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"^datasets\.birds\.root = {tmp_path}/gone does not exist"):
        prepare("birds", folder_settings(tmp_path / "gone"), tmp_path / "data" / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_corrupt_image_leaves_what_was_there(tmp_path: Path, root: Path) -> None:
    prepare("x", folder_settings(root), tmp_path / "out")
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    (root / "e" / "1.png").write_bytes((root / "e" / "1.png").read_bytes()[:50])
    for out in ("out", "other"):
        with pytest.raises(DataError, match=rf"^image {root}/e/1.png is "):
            prepare("x", folder_settings(root), tmp_path / out)
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "raw"]


@pytest.mark.parametrize("before", ["nothing", "an empty folder", "an old result"])
def test_an_old_result_is_replaced(tmp_path: Path, root: Path, before: str) -> None:
    if before == "an empty folder":
        (tmp_path / "out").mkdir()
    if before == "an old result":
        prepare("x", folder_settings(root, resize=3), tmp_path / "out")
    manifest = prepare("x", folder_settings(root), tmp_path / "out")
    assert manifest["settings"]["resize"] == 6
    files = ["manifest.json", "test.arrow", "train.arrow", "val.arrow"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == files
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "raw"]


def other_file(out: Path) -> None:
    (out / "notes.txt").touch()


def no_manifest(out: Path) -> None:
    (out / "manifest.json").unlink()


def another_manifest(out: Path) -> None:
    (out / "manifest.json").write_text('{"name": "an app"}')


def broken_manifest(out: Path) -> None:
    (out / "manifest.json").write_text("[" * 100_000)


def a_folder(out: Path) -> None:
    (out / "val.arrow").unlink()
    (out / "val.arrow").mkdir()


def a_file(out: Path) -> None:
    shutil.rmtree(out)
    out.write_text("precious")


@pytest.mark.parametrize(
    "spoil", [other_file, no_manifest, another_manifest, broken_manifest, a_folder, a_file]
)
def test_what_prepare_did_not_make_stays(tmp_path: Path, root: Path, spoil: Callable[[Path], None]) -> None:
    prepare("x", folder_settings(root), tmp_path / "out")
    spoil(tmp_path / "out")
    with (
        nothing_changes(tmp_path),
        pytest.raises(DataError, match=rf"^{tmp_path}/out was not made by prepare.*: move it away$"),
    ):
        prepare("x", folder_settings(root), tmp_path / "out")


def test_the_project_itself_is_not_replaced(tmp_path: Path, root: Path) -> None:
    with nothing_changes(tmp_path), pytest.raises(DataError, match=r"raw was not made by prepare"):
        prepare("x", folder_settings(root), root)


def test_a_place_that_cannot_be_written(tmp_path: Path, root: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        DiskError, match=rf"^{tmp_path}/file/out cannot be written \(.*\): move away what is in"
    ):
        prepare("x", folder_settings(root), tmp_path / "file" / "out")


def test_images_read_ahead_are_few(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    most = 0

    def watched(entry: Entry, *settings: Any) -> Encoded:
        read.append(entry.path)
        return encode_entry(entry, *settings)

    def slow_track(images: Any, description: str, total: int, unit: str) -> Any:
        nonlocal most
        for done, image in enumerate(images):
            most = max(most, len(read) - done)
            yield image
        read.clear()

    monkeypatch.setattr(mdprop.data.packing, "encode_entry", watched)
    monkeypatch.setattr(mdprop.data.packing, "track", slow_track)
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    prepare("x", folder_settings(root), tmp_path / "out")
    assert 1 <= most <= 4
