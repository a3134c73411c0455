"""A store of images to time with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from mdprop.data.images import encode
from mdprop.data.stores.images import ImageStore, Row, write_store


def noise_store(path: Path, images: int, size: int, per_class: int = 4) -> ImageStore:
    """Smooth noise as JPEGs of `size` pixels, encoded as `prepare` does, `per_class` of a class."""
    rng = np.random.default_rng(0)

    def draw() -> bytes:
        side = max(size // 8, 2)
        coarse = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
        return encode(coarse.resize((size, size)), "JPEG")

    rows = (Row(draw(), i // per_class, str(i // per_class), f"{i}.jpg", i) for i in range(images))
    write_store(path, rows, "RGB")
    return ImageStore(path)
