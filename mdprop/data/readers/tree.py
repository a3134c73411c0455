"""Folders of images on disk."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mdprop.data.readers.entries import Classes, Entry, as_text, by_class, images_below
from mdprop.errors import DataError
from mdprop.settings import expanded

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
# What systems put beside the user's files, in lower case; names with a dot in front are passed over anyway.
LITTER = frozenset(
    {
        "__macosx",
        "@eadir",
        "@recently-snapshot",
        "@recycle",
        "@sharebin",
        "@tmp",
        "#recycle",
        "#snapshot",
        "~snapshot",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "network trash folder",
        "temporary items",
        "desktop.ini",
        "ehthumbs.db",
        "thumbs.db",
    }
)
DEEPEST = 32  # folders below each other in that of a class

ClassFolder = tuple[str, Path]
"""(name of the class, a folder of its images)"""


def is_absent(root: Path) -> bool:
    """Whether nothing is there, or a folder without anything but hidden files and litter."""
    return not root.exists() or (root.is_dir() and not visible(root))


def existing_root(root: str | Path, key: str, layouts: str) -> Path:
    """The root as a path; `DataError` says what to put there where it is missing."""
    path = expanded(str(root), f"{key}.root")
    if not path.is_dir():
        what = "is no folder" if path.exists() else "does not exist"
        raise DataError(f"{key}.root = {root} {what}: put images there as {layouts}, or change the key")
    visible(path)
    if not os.access(path, os.X_OK):
        raise DataError(f"{key}.root = {root} cannot be entered: check its permissions")
    return path


def first_folder_with(name: str, root: Path, *below: str) -> Path | None:
    """The first of `root` and its folders `below` that holds `name`."""
    return next((folder for folder in (root, *map(root.joinpath, below)) if (folder / name).exists()), None)


def class_folders(parent: Path) -> list[Path]:
    """The folders in `parent` by name, without hidden ones and litter; none where there is no `parent`.

    Raises `DataError` for a link that leads nowhere, as it may have been a class.
    """
    if not parent.is_dir():
        return []
    found = visible(parent)
    for path in found:
        if path.is_symlink():
            _kind_of_target(str(path))
    return sorted((path for path in found if path.is_dir()), key=lambda folder: folder.name)


def named(folders: Sequence[Path]) -> list[ClassFolder]:
    """Folders with their own names as the names of the classes."""
    return [(as_text(folder.name), folder) for folder in folders]


def read_folders(
    root: Path, parts: Mapping[str, Sequence[ClassFolder]], fewest: int = 0
) -> dict[str, Classes]:
    """The images in and below the class folders of each part, by path; their `name` is relative to `root`.

    A class may have several folders; one of fewer than `fewest` images is refused.
    Links are followed where they lead to what is in no class folder and holds none; others would bring
    images of one class into another, or never end.

    Raises `DataError` for such a link or a broken one, folders more than `DEEPEST` deep, and a class
    too small.
    """
    places = _Places(root)
    folders = [folder for part in parts.values() for _, folder in part]
    for folder in sorted(folders, key=places.is_moved):
        places.claim(os.path.realpath(folder), str(folder))
    source = images_below(root)
    small: list[tuple[Path, int]] = []

    def entries(part: Sequence[ClassFolder]) -> Iterator[Entry]:
        for class_name, folder in part:
            names = places.images(folder)
            if len(names) < fewest:
                small.append((folder, len(names)))
            for name in names:
                yield Entry(class_name, name, source)

    found = {split: by_class(entries(part)) for split, part in parts.items()}
    if small:
        raise _too_small(small, fewest)
    return found


def is_image(name: str | Path) -> bool:
    """Whether a file is called as an image is."""
    return str(name).lower().endswith(EXTENSIONS)


def visible(folder: Path) -> list[Path]:
    """What is in a folder, without hidden names and the litter of systems."""
    return [folder / entry.name for entry in _listed(str(folder))]


class _Places:
    """The folders of a data set as they lie on disk, so that none is read twice."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._real_root = os.path.realpath(root)
        self._read: dict[str, str] = {}  # real path of a folder: as it is called
        # real path of each folder that holds one of these, or the root: that one
        self._above = {place: str(root) for place in (self._real_root, *_parents(self._real_root))}

    def is_moved(self, folder: Path) -> bool:
        """Whether links lead to another place than the folder's own below the root."""
        return os.path.realpath(folder) != os.path.join(self._real_root, folder.relative_to(self._root))

    def claim(self, real: str, shown: str) -> None:
        """Take a folder as one that is read; raises `DataError` where it is, in part or in whole, already."""
        if real in self._above:
            raise DataError(
                f"{shown} is a link to {real}, which holds {self._above[real]}: the images there would be "
                "read twice; remove the link"
            )
        self.refuse_read(real, shown)
        self._read[real] = shown
        for parent in _parents(real):
            if parent in self._above:
                break
            self._above[parent] = shown

    def refuse_read(self, real: str, shown: str) -> None:
        """Raise `DataError` where a path lies in a folder that is read."""
        owner = next((self._read[place] for place in (real, *_parents(real)) if place in self._read), None)
        if owner is not None:
            raise DataError(
                f"{shown} is a link to {real}, which is read as part of {owner}: the images there would be "
                "read twice; remove the link"
            )

    def images(self, folder: Path) -> list[str]:
        """The paths, below the root, of the images in and below a folder, sorted."""
        found: list[str] = []
        pending = [(folder.relative_to(self._root).as_posix(), 0)]
        while pending:
            place, depth = pending.pop()
            full = os.path.join(self._root, place)
            if depth > DEEPEST:
                raise DataError(f"{folder} holds folders more than {DEEPEST} deep: flatten or remove them")
            for entry in _listed(full):
                path = f"{place}/{entry.name}"
                if self._is_folder(entry):
                    pending.append((path, depth + 1))
                elif is_image(entry.name):
                    found.append(path)
        return sorted(found, key=lambda path: path.split("/"))

    def _is_folder(self, entry: os.DirEntry[str]) -> bool:
        """Whether to go into it, also through a link; a broken link to an image is found on decoding."""
        if not entry.is_symlink():
            return entry.is_dir()
        if is_image(entry.name) and not os.path.exists(entry.path):
            return False
        kind = _kind_of_target(entry.path)
        if stat.S_ISDIR(kind):
            self.claim(os.path.realpath(entry.path), entry.path)
            return True
        if is_image(entry.name):
            self.refuse_read(os.path.realpath(entry.path), entry.path)
        return False


def _parents(path: str) -> Iterator[str]:
    """The folders above a path, from the nearest on."""
    while (parent := os.path.dirname(path)) != path:
        yield parent
        path = parent


def _kind_of_target(link: str) -> int:
    """The mode of what a link leads to; raises `DataError` where it leads nowhere."""
    try:
        return os.stat(link).st_mode
    except OSError as error:
        raise DataError(
            f"{link} is a link to {os.readlink(link)}, which cannot be reached ({error.strerror}): mend or "
            "remove it"
        ) from None


def _listed(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not _is_litter(entry.name)]
    except OSError as error:
        raise DataError(f"{folder} cannot be listed ({error.strerror}): check its permissions") from None


def _is_litter(name: str) -> bool:
    return name.startswith((".", ":2e")) or name.lower() in LITTER


def _too_small(small: Sequence[tuple[Path, int]], fewest: int) -> DataError:
    folder, count = small[0]
    others = f", and {len(small) - 1:,} more class folder(s) have fewer than {fewest}" if small[1:] else ""
    return DataError(
        f"class folder {folder} has {count or 'no'} image(s){others}; {fewest} or more are needed "
        f"({' '.join(EXTENSIONS)}): add images, or remove the folder"
    )
