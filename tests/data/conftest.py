from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def make_classes() -> Callable[..., None]:
    """Write `images` small images, each of its own grey level, to a folder for each class."""

    def make(parent: Path, names: Sequence[str], images: int = 2, suffix: str = ".png") -> None:
        for name in names:
            folder = parent / name
            folder.mkdir(parents=True)
            for index in range(images):
                level = sum(map(ord, f"{parent.name}/{name}/{index}")) % 256
                Image.fromarray(np.full((6, 8), level, np.uint8)).save(folder / f"{index}{suffix}")

    return make
