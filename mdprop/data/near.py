"""Near-duplicates in a prepared data set: images that look alike to a perceptual hash."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mdprop.data.readers.entries import SPLITS
from mdprop.data.stores.arrow import ArrowFile
from mdprop.data.stores.images import ImageStore
from mdprop.errors import DataError, ParameterError
from mdprop.runtime.progress import track

BITS = 64
MOST_DISTANCE = 16  # a quarter of the bits: beyond it images have little in common
_ROWS = 256  # compared with all others at a time


class Near(NamedTuple):
    """Two images, as (split, path), and the bits in which their hashes differ."""

    first: tuple[str, str]
    second: tuple[str, str]
    distance: int

    @property
    def is_across(self) -> bool:
        return self.first[0] != self.second[0]

    def __str__(self) -> str:
        (split, path), (other_split, other_path) = self.first, self.second
        return f"{path} ({split}) ~ {other_path} ({other_split}), {self.distance} bits"


def near_duplicates(folder: str | Path, distance: int) -> list[Near]:
    """The pairs of images of a prepared data set whose hashes differ in `distance` bits of 64 at most.

    The hash is `imagehash.phash`: the signs of the lowest frequencies of the image in grey. Pairs across
    splits come first, then the nearest.

    Raises `ParameterError` for a distance that is not in 0..16 and where the package imagehash is missing,
    `DataError` for a folder that holds no prepared data set.
    """
    if not 0 <= distance <= MOST_DISTANCE:
        raise ParameterError(
            f"distance {distance}: a whole number of bits from 0 to {MOST_DISTANCE} is needed"
        )
    files = {split: Path(folder) / f"{split}.arrow" for split in SPLITS}
    present = {split: file for split, file in files.items() if file.is_file()}
    if not present:
        raise DataError(f"{folder} is no prepared data set: give a folder such as data/prepared/glyphs")
    hashes = np.concatenate([_hashes(ImageStore(file), split) for split, file in present.items()])
    images = [(split, path) for split, file in present.items() for path in _paths(file)]
    found = [Near(images[a], images[b], bits) for a, b, bits in _close(hashes, distance)]
    return sorted(found, key=lambda pair: (not pair.is_across, pair.distance))


def _hashes(store: ImageStore, split: str) -> NDArray[np.uint8]:
    """[N, 8]"""
    try:
        from imagehash import phash
    except ImportError:
        raise ParameterError("near-duplicates need the package imagehash: pip install imagehash") from None

    def hash_one(index: int) -> NDArray[np.uint8]:
        pixels = store.image(index).permute(1, 2, 0).numpy()
        return np.packbits(phash(Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)).hash)

    with ThreadPoolExecutor() as pool:
        hashes = track(pool.map(hash_one, range(len(store))), f"hashing {split}", len(store), "images")
        return np.array(list(hashes), dtype=np.uint8).reshape(-1, BITS // 8)


def _paths(file: Path) -> Iterator[str]:
    for batch in ArrowFile(file, known=True).batches():
        yield from batch["path"].to_pylist()


def _close(hashes: NDArray[np.uint8], distance: int) -> Iterable[tuple[int, int, int]]:
    """(row, a later row, bits in which they differ) of the rows that are close."""
    import faiss

    index = faiss.IndexBinaryFlat(BITS)
    index.add(hashes)
    for start in range(0, len(hashes), _ROWS):
        ends, bits, rows = index.range_search(hashes[start : start + _ROWS], distance + 1)
        askers = start + np.repeat(np.arange(len(ends) - 1), ends[1:].astype(int) - ends[:-1].astype(int))
        later = rows > askers
        yield from zip(
            askers[later].tolist(), rows[later].tolist(), bits[later].astype(int).tolist(), strict=True
        )
