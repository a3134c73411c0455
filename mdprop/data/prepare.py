"""A data set of any layout, packed into one Arrow file a split."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image, ImageFile

from mdprop.data.entries import Entry, Splits, check_splits
from mdprop.data.folder import folder_entries
from mdprop.data.images import to_mode
from mdprop.data.omniglot import omniglot_entries
from mdprop.data.store import Row, write_store
from mdprop.errors import DataError
from mdprop.runtime import track

T = TypeVar("T")
R = TypeVar("R")

READER_KEYS = {
    "glyphs": ("seed", "images_per_class", "difficulty"),
    "folder": ("root", "validation_classes"),
    "omniglot": ("root", "validation_classes"),
}
LONGEST_SIDE = 65_500  # of a JPEG


def prepare(name: str, settings: Any, out: str | Path) -> dict[str, Any]:
    """Write out/{train,val,test}.arrow and out/manifest.json; the whole folder or nothing.

    name: the data set's key under `datasets`; settings: what stands there (`reader`, `mode`,
    `resize` and the reader's own keys are read).

    Each image is turned upright, converted to `mode` and resized once so that its short side has
    `resize` pixels (bicubic, antialiased; small ones grow). JPEGs are stored as JPEGs of quality 95
    without chroma subsampling, all others as PNGs; a JPEG or PNG that fits already keeps its bytes.
    Labels count the classes, ids the images of train, val and test in this order. The same data
    give the same bytes.

    Returns the manifest: name, the settings that matter here, and per split the number of images
    and classes, the fewest and most images of a class, and a SHA-256 of the content.
    Raises `DataError`, one line, for whatever is wrong with the data set or its images.
    """
    out = Path(out)
    splits = check_splits(read_splits(name, settings))
    labels = {c: i for i, c in enumerate(dict.fromkeys(e.class_name for e in chain(*splits.values())))}
    keys = ("reader", *READER_KEYS[settings.reader], "mode", "resize")
    used = {key: getattr(settings, key) for key in keys}
    manifest: dict[str, Any] = {"name": name, "settings": used, "splits": {}}
    # Drawing shares fonts, which are not safe to use from several threads.
    workers = 1 if settings.reader == "glyphs" else min(os.cpu_count() or 1, 8)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch,
            ThreadPoolExecutor(workers) as pool,
        ):
            new = Path(scratch) / "new"
            new.mkdir()
            encode = partial(encode_entry, mode=settings.mode, resize=settings.resize)
            first_id = 0
            for split, entries in splits.items():
                images = _ordered(pool, encode, entries, ahead=4 * workers)
                images = track(images, f"preparing {name} {split}", len(entries))
                digest = hashlib.sha256()
                rows = _rows(images, entries, labels, first_id, digest.update)
                write_store(new / f"{split}.arrow", rows, settings.mode)
                manifest["splits"][split] = {**_counts(entries), "sha256": digest.hexdigest()}
                first_id += len(entries)
            (new / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
            if out.exists():
                out.rename(Path(scratch) / "old")
            new.rename(out)
    except OSError as error:
        raise DataError(f"{out} cannot be written ({error}): free space or check permissions") from error
    return manifest


def read_splits(name: str, settings: Any) -> Splits:
    """The entries of a data set, by the reader that its settings name."""
    key = f"datasets.{name}"
    if settings.reader == "glyphs":
        from mdprop.data.glyphs import glyph_entries

        return glyph_entries(settings.seed, settings.images_per_class, settings.difficulty, settings.resize)
    if settings.reader == "folder":
        return folder_entries(settings.root, settings.validation_classes, key)
    if settings.reader == "omniglot":
        return omniglot_entries(settings.root, settings.validation_classes, key)
    raise DataError(f"{key}.reader = {settings.reader}: known are {', '.join(READER_KEYS)}")


def encode_entry(entry: Entry, mode: str, resize: int) -> bytes:
    """An image upright, in `mode` and with a short side of `resize` pixels, as JPEG or PNG."""
    source = entry.read()
    image = resize_short_side(to_mode(source, mode), resize, entry.path)
    # What to_mode and resize_short_side return as it came needs no second encoding.
    if image is source and isinstance(source, ImageFile.ImageFile) and source.format in ("JPEG", "PNG"):
        return Path(os.fsdecode(source.filename)).read_bytes()
    encoded = io.BytesIO()
    if source.format in ("JPEG", "MPO"):
        image.save(encoded, "JPEG", quality=95, subsampling=0)
    else:
        image.save(encoded, "PNG")
    return encoded.getvalue()


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


def _rows(
    images: Iterator[bytes],
    entries: list[Entry],
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


def _counts(entries: list[Entry]) -> dict[str, int]:
    sizes = Counter(entry.class_name for entry in entries).values()
    return {
        "images": len(entries),
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
