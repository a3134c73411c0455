"""The prepared images that are searched for and searched."""

from __future__ import annotations

from pathlib import Path

from mdprop.branches import CLEAN
from mdprop.data.stores.images import ImageStore
from mdprop.runs import GALLERY


def clean_stores(prepared: Path) -> dict[str, ImageStore]:
    """The clean test images in a folder that `prepare` wrote, and where there is one the gallery."""
    files = {CLEAN: prepared / "test.arrow", GALLERY: prepared / "gallery.arrow"}
    return {name: ImageStore(file) for name, file in files.items() if name == CLEAN or file.exists()}
