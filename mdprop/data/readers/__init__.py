"""The readers of the published data sets, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mdprop.data.readers.cars196 import CARS196, read_cars196
from mdprop.data.readers.cub200 import CUB200, read_cub200
from mdprop.data.readers.entries import Splits
from mdprop.data.readers.inshop import INSHOP, read_inshop
from mdprop.data.readers.sop import SOP, read_sop
from mdprop.data.readers.source import Published, check_counts, published_root

READERS: dict[str, tuple[Published, Callable[[Path], Splits]]] = {
    "cub200": (CUB200, read_cub200),
    "cars196": (CARS196, read_cars196),
    "sop": (SOP, read_sop),
    "inshop": (INSHOP, read_inshop),
}


def read_published(reader: str, root: str, counts: bool, key: str) -> Splits:
    """The classes of "train", "test" and, of In-Shop, "gallery".

    root: the folder of the data set; where it is missing or empty, what is served is downloaded.
    counts: whether to compare the numbers of classes and images with the published ones.
    key: the settings' place in params.yaml, for messages.

    Raises `DataError` where the data are missing, incomplete, or their lists malformed.
    """
    published, read = READERS[reader]
    splits = read(published_root(root, published, key))
    if counts:
        check_counts(splits, published, root, key)
    return splits
