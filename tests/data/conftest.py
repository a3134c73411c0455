from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def make_classes() -> Callable[..., None]:
    """Write `images` small images, each of pixels of its own, to a folder for each class."""

    def make(parent: Path, names: Sequence[str], images: int = 2, suffix: str = ".png") -> None:
        for name in names:
            folder = parent / name
            folder.mkdir(parents=True)
            for index in range(images):
                seed = zlib.crc32(f"{parent.name}/{name}/{index}".encode())
                noise = np.random.default_rng(seed).integers(0, 256, (6, 8), dtype=np.uint8)
                Image.fromarray(noise).save(folder / f"{index}{suffix}")

    return make
