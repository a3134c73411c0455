"""Blocks of `datasets` as settings, and the data sets that they name."""

from __future__ import annotations

from pathlib import Path

from mdprop.data.readers import read_classes, settings_class
from mdprop.data.readers.entries import Splits
from mdprop.data.readers.settings import ImageSettings

IMAGES = {
    "mode": "L",
    "resize": 6,
    "encoding": "compressed",
    "image_size": 2,
    "crop_scale": [0.5, 1.0],
    "flip": False,
    "mean": [0.5],
    "std": [0.25],
}
PUBLISHED = ("cub200", "cars196", "sop", "inshop", "grocery")


def block(reader: str, root: Path, **changes: object) -> dict[str, object]:
    """A block as it stands in params.yaml, with mean and std for the mode."""
    counts = {"check_counts": False} if reader in PUBLISHED else {}
    found = {"reader": reader, "root": str(root), **counts, **IMAGES, **changes}
    channels = len(str(found["mode"]))
    return {**found, "mean": [0.5] * channels, "std": [0.25] * channels}


def settings(reader: str, root: Path, **changes: object) -> ImageSettings:
    found = block(reader, root, **changes)
    return settings_class(found).model_validate(found)


def splits_of(reader: str, root: Path, key: str = "datasets.x", **changes: object) -> Splits:
    """The classes of the data set at `root`, without a look at their number unless told to."""
    return read_classes(settings(reader, root, **changes), key)


def counts(splits: Splits) -> dict[str, tuple[int, int]]:
    """(classes, images) of each split."""
    return {split: (len(c), sum(map(len, c.values()))) for split, c in splits.items()}
