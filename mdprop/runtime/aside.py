"""What was kept of a task that is done, until dvc has noted its result.

dvc hashes and copies results for a moment after their stage has ended. Killed in it, it removes them
at its next run, and runs the stage again. So the state of a stage that did well lies beside dvc's own
temporary files until another one ends, and dvc.lock names the result.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from pathlib import Path

_ASIDE = Path(".dvc") / "tmp" / "mdprop"
_RESULT = "result"


def started_by_dvc() -> bool:
    return "DVC_STAGE" in os.environ


def name_result(folder: Path, result: Path) -> None:
    """Name the result of a task, one of DVC's files, in the folder of its state."""
    if started_by_dvc():
        with contextlib.suppress(OSError):  # a full disk: the state is not put aside
            (folder / _RESULT).write_text(_as_dvc_names(result))


def put_away(folder: Path) -> None:
    """Remove the folder of a task that is done; put it aside where its result is named."""
    aside = _aside(folder)
    if (folder / _RESULT).exists():
        with contextlib.suppress(OSError):
            shutil.rmtree(aside, ignore_errors=True)
            aside.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(aside)
            return
    shutil.rmtree(folder)


def take_back(folder: Path) -> None:
    """Give a task the folder that was put aside, unless dvc.lock names its result."""
    aside = _aside(folder)
    if folder.exists() or not aside.exists():
        return
    if _noted(aside):
        shutil.rmtree(aside)
    else:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside.rename(folder)


def forget_noted(states: Path) -> None:
    """Remove what was put aside and dvc.lock names by now. states: the folder of all states."""
    for aside in _aside(states / "any").parent.glob("*"):
        with contextlib.suppress(OSError):
            if _noted(aside):
                shutil.rmtree(aside)
            aside.parent.rmdir()  # if it was the last one


def _noted(aside: Path) -> bool:
    lock = Path("dvc.lock")
    return lock.exists() and (aside / _RESULT).read_text() in lock.read_text(encoding="utf-8")


def _aside(folder: Path) -> Path:
    return folder.parents[2] / _ASIDE / folder.name


def _as_dvc_names(file: Path) -> str:
    return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
