"""A data set of any layout, packed into one Arrow file a split."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image, ImageFile

from mdprop.data.images import encode, to_mode
from mdprop.data.readers import read_classes
from mdprop.data.readers.entries import (
    Classes,
    Entry,
    FractionOf,
    Splits,
    entries_of,
    hold_out,
    keep_fraction,
    make_splits,
)
from mdprop.data.readers.settings import ImageSettings
from mdprop.data.stores.images import Row, write_store
from mdprop.errors import DataError
from mdprop.runtime.progress import track

T = TypeVar("T")
R = TypeVar("R")

LONGEST_SIDE = 65_500  # of a JPEG


def prepare(
    name: str,
    settings: ImageSettings,
    out: str | Path,
    *,
    validation_classes: int = 0,
    train_fraction: float = 1.0,
    fraction_of: FractionOf = "images",
) -> dict[str, Any]:
    """Write out/{train,val,test}.arrow and out/manifest.json; the whole folder or nothing.

    Of data with queries and a gallery, test.arrow holds the queries and gallery.arrow is written too.

    name: the data set's key under `datasets`; settings: what stands there.
    validation_classes: how many of the training classes, the last ones, become "val"; not looked at
        where the data set brings a "val" of its own.
    train_fraction, fraction_of: see `keep_fraction`; of what is left to train on.

    Each image is turned upright, converted to `mode` and resized once so that its short side has
    `resize` pixels (bicubic, antialiased; small ones grow), then stored as `encode_entry` says.
    Labels count the classes, ids the images of train, val, test and gallery in this order; the
    gallery's classes are those of test. The same data give the same bytes.

    Returns the manifest: name, the settings that matter here, and per split the number of images
    and classes, the fewest and most images of a class, and a SHA-256 of the content.
    Raises `DataError`, one line, for whatever is wrong with the data set or its images.
    """
    out = Path(out)
    splits = read_classes(settings, f"datasets.{name}")
    if "val" not in splits:
        splits["train"], splits["val"] = hold_out(splits["train"], validation_classes)
    splits["train"] = keep_fraction(splits["train"], train_fraction, fraction_of)
    splits = make_splits(splits)
    used = {
        **settings.stored(),
        "validation_classes": validation_classes,
        "train_fraction": train_fraction,
        "fraction_of": fraction_of,
    }
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
            new = Path(scratch) / "new"
            new.mkdir()
            manifest = {"name": name, "settings": used, "splits": _pack(name, splits, settings, new)}
            (new / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
            if out.exists():
                out.rename(Path(scratch) / "old")
            new.rename(out)
    except OSError as error:
        raise DataError(f"{out} cannot be written ({error}): free space or check permissions") from error
    return manifest


def encode_entry(entry: Entry, mode: str, resize: int, encoding: str) -> bytes:
    """An image upright, in `mode` and with a short side of `resize` pixels, in bytes.

    encoding: "raw", its bare pixels; "compressed", a JPEG of quality 95 without chroma subsampling
        where the source is a JPEG, else a PNG; a JPEG or PNG that fits already keeps its bytes.
    """
    source = entry.read()
    image = resize_short_side(to_mode(source, mode), resize, entry.path)
    if encoding == "raw":
        return encode(image, "PPM")
    # What to_mode and resize_short_side return as it came needs no second encoding.
    if image is source and isinstance(source, ImageFile.ImageFile) and source.format in ("JPEG", "PNG"):
        return Path(os.fsdecode(source.filename)).read_bytes()
    return encode(image, "JPEG" if source.format in ("JPEG", "MPO") else "PNG")


def resize_short_side(image: Image.Image, pixels: int, path: str) -> Image.Image:
    """The image with a short side of `pixels`; raises `DataError` for one too elongated to store."""
    short = min(image.size)
    if short == pixels:
        return image
    width, height = (round(side * pixels / short) for side in image.size)
    if max(width, height) > LONGEST_SIDE:
        raise DataError(
            f"image {path} of {image.width}x{image.height} pixels is too elongated to be stored "
            f"{pixels} pixels wide: crop or remove it"
        )
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _pack(
    name: str, splits: Splits, settings: ImageSettings, folder: Path
) -> dict[str, dict[str, int | str]]:
    """Write folder/<split>.arrow of each split; their counts and checksums."""
    encode_one = partial(encode_entry, mode=settings.mode, resize=settings.resize, encoding=settings.encoding)
    workers = min(os.cpu_count() or 1, 8)
    packed: dict[str, dict[str, int | str]] = {}
    first_id = 0
    labels: dict[str, int] = {}
    new_label = count()
    with ThreadPoolExecutor(workers) as pool:
        for split, classes in splits.items():
            if split != "gallery":  # which shares the classes of test
                labels = {}
            labels |= {name: next(new_label) for name in classes if name not in labels}
            counts = _counts(classes)
            images = _ordered(pool, encode_one, entries_of(classes), ahead=4 * workers)
            images = track(images, f"preparing {name} {split}", counts["images"])
            digest = hashlib.sha256()
            rows = _rows(images, entries_of(classes), labels, first_id, digest.update)
            write_store(folder / f"{split}.arrow", rows, settings.mode)
            packed[split] = {**counts, "sha256": digest.hexdigest()}
            first_id += counts["images"]
    return packed


def _rows(
    images: Iterator[bytes],
    entries: Iterable[Entry],
    labels: dict[str, int],
    first_id: int,
    update: Callable[[bytes], None],
) -> Iterator[Row]:
    """The rows of one split; `update` gets their content."""
    for index, (image, entry) in enumerate(zip(images, entries, strict=True), first_id):
        label = labels[entry.class_name]
        update(json.dumps([index, label, entry.class_name, entry.path, len(image)]).encode())
        update(image)
        yield Row(image, label, entry.class_name, entry.path, index)


def _counts(classes: Classes) -> dict[str, int]:
    sizes = [len(entries) for entries in classes.values()]
    return {
        "images": sum(sizes),
        "classes": len(sizes),
        "min_images_per_class": min(sizes, default=0),
        "max_images_per_class": max(sizes, default=0),
    }


def _ordered(
    pool: ThreadPoolExecutor, function: Callable[[T], R], items: Iterable[T], ahead: int
) -> Iterator[R]:
    """`map` over a pool, in order, with at most `ahead` results in memory."""
    pending: deque[Future[R]] = deque()
    for item in items:
        pending.append(pool.submit(function, item))
        if len(pending) >= ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
