"""Omniglot (Lake et al., 2015): 1,623 handwritten characters, each by 20 drawers."""

from __future__ import annotations

import http.client
import zipfile
from pathlib import Path
from typing import Literal

from mdprop.data.readers.entries import Splits, as_text
from mdprop.data.readers.folder import is_split, read_split
from mdprop.data.readers.settings import ImageSettings
from mdprop.data.readers.tree import ClassFolder, class_folders, existing_root, is_absent, read_folders
from mdprop.errors import DataError, one_line
from mdprop.runtime.scratch import scratch_beside
from mdprop.settings import FilePath, expanded

TRAIN, TEST = "images_background", "images_evaluation"
DOWNLOADED = "omniglot-py"  # the folder that torchvision makes
LAYOUTS = f"{TRAIN}/<alphabet>/<character>/ and {TEST}/..., or train/<class>/ and test/<class>/"


class Settings(ImageSettings):
    reader: Literal["omniglot"]
    root: FilePath


def read(settings: Settings, key: str) -> Splits:
    """Omniglot's characters; a class is "Alphabet/character01".

    Layouts: images_background (train) and images_evaluation (test), in `root` or in
    root/omniglot-py as torchvision lays them; or root/train/<class>/ and root/test/<class>/. Where
    `root` is missing or empty, torchvision downloads it there.

    Raises `DataError` for an unknown layout, a failed download, and a class of fewer than two images.
    """
    root = expanded(settings.root, f"{key}.root")
    if is_absent(root):
        _download(root, key)
    root = existing_root(root, key, LAYOUTS)
    if is_split(root):
        return read_split(root)
    for parent in (root, root / DOWNLOADED):
        if class_folders(parent / TRAIN) or class_folders(parent / TEST):
            parts = {"train": _characters(parent / TRAIN), "test": _characters(parent / TEST)}
            return read_folders(root, parts, fewest=2)
    raise DataError(f"{root} is no Omniglot: put there {LAYOUTS}; or remove it, to download it")


def _characters(part: Path) -> list[ClassFolder]:
    if not class_folders(part):
        raise DataError(f"{part} is missing or has no alphabets: extract {part.name}.zip there")
    return [
        (as_text(f"{alphabet.name}/{character.name}"), character)
        for alphabet in class_folders(part)
        for character in class_folders(alphabet)
    ]


def _download(root: Path, key: str) -> None:
    """Both parts of Omniglot to root/omniglot-py; all of it or nothing."""
    from torchvision.datasets import Omniglot

    with scratch_beside(root) as scratch:
        try:
            for background in (True, False):
                Omniglot(str(scratch), background=background, download=True)
        except (OSError, RuntimeError, http.client.HTTPException, zipfile.BadZipFile) as error:
            raise DataError(
                f"{key}.root = {root} is missing, and downloading Omniglot failed ({one_line(error)}): "
                f"put there {LAYOUTS}"
            ) from None
        root.mkdir(exist_ok=True)
        (scratch / DOWNLOADED).rename(root / DOWNLOADED)
