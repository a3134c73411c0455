"""Temporary folders beside what is made in them, of which a killed process leaves none for long."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mdprop.runtime.locks import locked

LOCK = "lock"


@contextmanager
def scratch_beside(target: Path) -> Iterator[Path]:
    """A folder `.<name>.XXXXXXXX` beside `target`, thus on its disk, which is removed at the end.

    Those that killed processes left for the same target are removed first: a process holds a lock in
    its own, which the system takes back when the process ends. Folders without such a lock file are
    not ours and stay. Raises `OSError` where the file system refuses.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    for folder in target.parent.iterdir() if os.name == "posix" else ():  # elsewhere there are no locks
        if re.fullmatch(rf"\.{re.escape(target.name)}\.[a-z0-9_]{{8}}", folder.name):
            _remove_left(folder)
    folder, lock = _made(target)
    try:
        yield folder
    finally:
        _remove(folder, lock)


def _made(target: Path) -> tuple[Path, int]:
    """A new folder and its lock; once more where another process took the new folder for one left over."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        with contextlib.suppress(FileNotFoundError):
            lock = locked(folder / LOCK)
            if lock is not None:
                return folder, lock


def _remove_left(folder: Path) -> None:
    """Remove a folder that no process holds; what cannot be removed stays."""
    with contextlib.suppress(OSError):
        if (folder / LOCK).is_file():
            lock = locked(folder / LOCK)
            if lock is not None:
                _remove(folder, lock)
        else:
            folder.rmdir()  # an empty one: killed before it had its lock, or after


def _remove(folder: Path, lock: int) -> None:
    """Remove a folder, its lock last: a process that is killed in between leaves a folder known as ours."""
    for path in folder.iterdir():
        if path.name != LOCK:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    os.close(lock)  # before the file goes: Windows removes no open ones
    with contextlib.suppress(FileNotFoundError):  # from here on another process may do it
        (folder / LOCK).unlink()
        folder.rmdir()
