"""Images of splits, decoded, resized and packed into one Arrow file a split."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from typing import NamedTuple, TypeVar

from PIL import Image, ImageFile

from mdprop.data.audit import Audit, Duplicate, digest, find_duplicates
from mdprop.data.images import ImageError, encode, to_mode
from mdprop.data.readers.entries import Entry, Splits, entries_of
from mdprop.data.readers.settings import ImageSettings
from mdprop.data.stores.arrow import ArrowFile
from mdprop.data.stores.images import Row, write_store
from mdprop.runtime.progress import track
from mdprop.seals import sealed_as

T = TypeVar("T")
R = TypeVar("R")

LONGEST_SIDE = 65_500  # of a JPEG


class Encoded(NamedTuple):
    """An image as it is stored, and the digest of its pixels, before a JPEG's losses."""

    image: bytes
    digest: bytes


def pack(
    name: str, splits: Splits, settings: ImageSettings, folder: Path, audit: Audit
) -> dict[str, dict[str, int | str]]:
    """Write folder/<split>.arrow of each split; their counts and checksums.

    Images that cannot be used are left out. `audit` is told of them, and of the digests of the others.
    """
    encode_one = partial(_attempt, mode=settings.mode, resize=settings.resize, encoding=settings.encoding)
    workers = min(os.cpu_count() or 1, 8)
    packed: dict[str, dict[str, int | str]] = {}
    labels: dict[str, int] = {}
    new_label = count()
    with ThreadPoolExecutor(workers) as pool:
        for split, classes in splits.items():
            if split != "gallery":  # which shares the classes of test
                labels = {}
            labels |= {name: next(new_label) for name in classes if name not in labels}
            images = _ordered(pool, encode_one, entries_of(classes), ahead=4 * workers)
            images = track(images, f"preparing {name} {split}", sum(map(len, classes.values())), "images")
            sizes = Counter(dict.fromkeys(classes, 0))
            content = hashlib.sha256()
            rows = _kept(split, images, entries_of(classes), labels, audit)
            store = folder / f"{split}.arrow"
            write_store(store, _counted(rows, sizes, content.update), settings.mode)
            packed[split] = {
                "images": sizes.total(),
                "classes": len(sizes),
                "min_images_per_class": min(sizes.values(), default=0),
                "max_images_per_class": max(sizes.values(), default=0),
                "sha256": content.hexdigest(),
                "digest": sealed_as(store),
            }
            audit.check_sizes(split, classes, sizes)
    return packed


def find_copies(folder: Path, splits: Iterable[str], digests: bytes | bytearray) -> list[Duplicate]:
    """The images in folder/<split>.arrow that have the pixels of an earlier one, by id.

    digests: of the images by id.
    """
    pairs = find_duplicates(digests)
    wanted = {number for pair in pairs for number in pair}
    named: dict[int, tuple[str, str]] = {}
    for split in splits if wanted else ():
        for batch in ArrowFile(folder / f"{split}.arrow", known=True).batches():
            for row, number in enumerate(batch["id"].to_pylist()):
                if number in wanted:
                    named[number] = split, batch["path"][row].as_py()
    return [Duplicate(*named[image], *named[first]) for image, first in pairs]


def encode_entry(entry: Entry, mode: str, resize: int, encoding: str) -> Encoded:
    """An image upright, in `mode` and with a short side of `resize` pixels, in bytes.

    encoding: "raw", its bare pixels; "compressed", a JPEG of quality 95 without chroma subsampling
        where the source is a JPEG, else a PNG; a JPEG or PNG that fits already keeps its bytes.
    """
    source = entry.read()
    image = resize_short_side(to_mode(source, mode), resize, entry.path)
    if encoding == "raw":
        data = encode(image, "PPM")
    # What to_mode and resize_short_side return as it came needs no second encoding.
    elif image is source and isinstance(source, ImageFile.ImageFile) and source.format in ("JPEG", "PNG"):
        data = Path(os.fsdecode(source.filename)).read_bytes()
    else:
        data = encode(image, "JPEG" if source.format in ("JPEG", "MPO") else "PNG")
    return Encoded(data, digest(image))


def resize_short_side(image: Image.Image, pixels: int, path: str) -> Image.Image:
    """The image with a short side of `pixels`; raises `ImageError` for one too elongated to store."""
    short = min(image.size)
    if short == pixels:
        return image
    width, height = (round(side * pixels / short) for side in image.size)
    if max(width, height) > LONGEST_SIDE:
        problem = f"of {image.width}x{image.height} pixels is too elongated to be stored {pixels} pixels wide"
        raise ImageError(f"image {path}", problem, "crop or remove it")
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _attempt(entry: Entry, mode: str, resize: int, encoding: str) -> Encoded | ImageError:
    try:
        return encode_entry(entry, mode, resize, encoding)
    except ImageError as error:
        return error


def _kept(
    split: str,
    images: Iterable[Encoded | ImageError],
    entries: Iterable[Entry],
    labels: dict[str, int],
    audit: Audit,
) -> Iterator[Row]:
    """The rows of one split, without images that cannot be used; ids go on from the splits before."""
    for found, entry in zip(images, entries, strict=True):
        if isinstance(found, ImageError):
            audit.skip(split, entry, found)
        else:
            number = audit.keep(found.digest)
            yield Row(found.image, labels[entry.class_name], entry.class_name, entry.path, number)


def _counted(rows: Iterable[Row], sizes: Counter[str], update: Callable[[bytes], None]) -> Iterator[Row]:
    """The rows; `sizes` counts the images of each class, `update` gets the content."""
    for row in rows:
        sizes[row.class_name] += 1
        update(json.dumps([row.id, row.label, row.class_name, row.path, len(row.image)]).encode())
        update(row.image)
        yield row


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
