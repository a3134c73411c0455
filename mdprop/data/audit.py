"""What is found while a data set's images are packed: those that cannot be used, and duplicates."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence, Sized
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from mdprop.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

    from mdprop.data.images import ImageError
    from mdprop.data.readers.entries import Entry

OnError = Literal["stop", "skip"]
Duplicates = Literal["refuse", "allow"]

SHOWN = 10  # of what may be many
DIGEST_BYTES = 16


class Skipped(NamedTuple):
    """An image that was left out; as in manifest.json."""

    split: str
    path: str
    reason: str


class Duplicate(NamedTuple):
    """An image with the pixels of an earlier one, the first that has them; as in manifest.json."""

    split: str
    path: str
    same_as_split: str
    same_as: str

    def __str__(self) -> str:
        return f"{self.path} ({self.split}) = {self.same_as} ({self.same_as_split})"


def digest(image: Image.Image) -> bytes:
    """Of the size and the pixels, in `DIGEST_BYTES`: whatever file they come from."""
    content = hashlib.sha256(str(image.size).encode())
    content.update(image.tobytes())
    return content.digest()[:DIGEST_BYTES]


def find_duplicates(digests: bytes | bytearray) -> list[tuple[int, int]]:
    """(image, the first one with its digest) of each image that is not the first, in order.

    digests: `DIGEST_BYTES` an image, end to end.
    """
    import numpy as np

    high, low = np.frombuffer(digests, dtype=np.uint64).reshape(-1, 2).T
    order = np.lexsort((low, high))  # stable: alike ones stay in order
    high, low = high[order], low[order]
    again = np.zeros(len(order), dtype=bool)
    again[1:] = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
    starts = np.maximum.accumulate(np.where(again, 0, np.arange(len(order))))
    return sorted(zip(order[again].tolist(), order[starts[again]].tolist(), strict=True))


def some(items: Sequence[object]) -> str:
    """The first items as text, and how many more there are."""
    rest = f"; and {len(items) - SHOWN:,} more" if len(items) > SHOWN else ""
    return "; ".join(map(str, items[:SHOWN])) + rest


class Audit:
    """What is found while images are packed; memory holds `DIGEST_BYTES` an image.

    skipped: the images that cannot be used. digests: of the others, by id.
    """

    def __init__(self) -> None:
        self.skipped: list[Skipped] = []
        self.digests = bytearray()
        self._errors: list[ImageError] = []
        self._small: list[str] = []

    def keep(self, digest: bytes) -> int:
        """Note an image that is kept, and give it an id: they count from 0."""
        self.digests += digest
        return len(self.digests) // DIGEST_BYTES - 1

    def skip(self, split: str, entry: Entry, error: ImageError) -> None:
        """Note an image that cannot be used."""
        self.skipped.append(Skipped(split, entry.path, error.problem))
        self._errors.append(error)

    def check_sizes(self, split: str, classes: Mapping[str, Sized], kept: Mapping[str, int]) -> None:
        """Note the classes that lost images and hold too few of them now.

        classes: as they were; kept: the images that each has now.
        """
        fewest = 1 if split == "gallery" else 2
        for name, images in classes.items():
            if kept[name] < min(fewest, len(images)):
                self._small.append(f"'{name}' of {split} ({kept[name]} of {len(images)})")

    def refuse(self, on_error: OnError) -> None:
        """Raise `DataError` for images that cannot be used; with "skip", for classes that lack them now."""
        if on_error == "stop" and len(self._errors) == 1:
            raise DataError(f"{self._errors[0]}; or leave it out with dataset.on_error=skip")
        if on_error == "stop" and self._errors:
            every = len(self._errors) + len(self.digests) // DIGEST_BYTES
            found = some([f"{error.name} {error.problem}" for error in self._errors])
            raise DataError(
                f"{len(self._errors):,} of {every:,} images cannot be used: {found}: mend or remove them, or "
                "leave them out with dataset.on_error=skip"
            )
        if self._small:
            raise DataError(
                f"without the {len(self.skipped):,} image(s) that cannot be used, {len(self._small):,} "
                f"class(es) have too few left: {some(self._small)}: 2 or more are needed (1 in a gallery); "
                "mend the images, or remove these classes"
            )


def refuse_duplicates(duplicates: Sequence[Duplicate]) -> None:
    """Raise `DataError` for images that are in two splits."""
    across = _across(duplicates)
    if across:
        raise DataError(
            f"{len(across):,} image(s) have the pixels of one in another split: {some(across)}: remove them "
            "from one of the two, or keep them with dataset.duplicates=allow"
        )


def findings(skipped: Sequence[Skipped], duplicates: Sequence[Duplicate]) -> dict[str, Any]:
    """What manifest.json says about them."""
    across = len(_across(duplicates))
    return {
        "skipped": [image._asdict() for image in skipped],
        "duplicates": {
            "across_splits": across,
            "within_splits": len(duplicates) - across,
            "pairs": [pair._asdict() for pair in duplicates],
        },
    }


def notes(manifest: Mapping[str, Any]) -> list[str]:
    """A sentence for each kind of trouble that a manifest tells of; none where all is well.

    Raises `DataError` for a manifest of another version.
    """
    try:
        left_out = [Skipped(**image) for image in manifest["skipped"]]
        pairs = [Duplicate(**pair) for pair in manifest["duplicates"]["pairs"]]
    except (KeyError, TypeError):
        raise DataError("manifest.json is of another version: run dvc repro prepare") from None
    found = []
    if left_out:
        reasons = some([f"{image.path} ({image.split}) {image.reason}" for image in left_out])
        found.append(f"{len(left_out):,} image(s) left out, as they cannot be used: {reasons}")
    across = _across(pairs)
    within = [pair for pair in pairs if pair.split == pair.same_as_split]
    if across:
        found.append(f"{len(across):,} image(s) with the pixels of one in another split: {some(across)}")
    if within:
        found.append(f"{len(within):,} image(s) with the pixels of another of their split: {some(within)}")
    return found


def _across(duplicates: Sequence[Duplicate]) -> list[Duplicate]:
    return [pair for pair in duplicates if pair.split != pair.same_as_split]
