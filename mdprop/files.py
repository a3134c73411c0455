"""Files that appear when they are whole, and JSON read with one-line errors."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mdprop.errors import DiskError, ResultError, disk_error
from mdprop.seals import BLANK, BrokenSeal, seal, seal_text, verify

SEAL = "$seal"
"""The key of a JSON object's own digest; no name of a set, a branch or a metric looks like it."""


# --- reading ---


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """The JSON object in `path`; `ResultError` names the file and the `remedy`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_int=_whole_number)
    except FileNotFoundError:
        raise ResultError(f"{path} not found: {remedy}") from None
    except OSError as error:
        raise ResultError(f"{path} cannot be read ({error.strerror}): {remedy}") from None
    except RecursionError:
        raise ResultError(f"{path} is not valid JSON (nested too deep): {remedy}") from None
    except ValueError as error:
        raise ResultError(f"{path} is not valid JSON ({error}): {remedy}") from None
    if not isinstance(content, dict):
        raise ResultError(f"{path} must hold a JSON object, not {type(content).__name__}: {remedy}")
    return content


def _whole_number(digits: str) -> int | float:
    """Infinity for what no float can hold."""
    return int(digits) if len(digits) < 300 else float(digits)


def read_sealed_json(path: Path, remedy: str) -> dict[str, Any]:
    """What `sealed_json` was given, from a file of it; `ResultError` also where a byte has changed."""
    try:
        verify(path)
    except FileNotFoundError:
        raise ResultError(f"{path} not found: {remedy}") from None
    except OSError as error:
        raise ResultError(f"{path} cannot be read ({error.strerror}): {remedy}") from None
    except BrokenSeal as error:
        raise ResultError(f"{path} {error}: delete it and {remedy}") from None
    content = read_json(path, remedy)
    content.pop(SEAL, None)
    return content


def sealed_json(content: Mapping[str, Any], *, sort_keys: bool = False, allow_nan: bool = True) -> str:
    """JSON for people to read, with its own digest in front: see `mdprop.seals`."""
    inside = json.dumps(content, indent=2, sort_keys=sort_keys, allow_nan=allow_nan).removeprefix("{")
    separator = "" if inside == "}" else ","
    return seal_text(f'{{\n  "{SEAL}": "{BLANK}"{separator}{inside}\n')


# --- writing ---


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; renamed at the end, removed on an error.

    Folders are made as needed. A place that cannot be written to shows before the work is done, and a
    disk that refuses only when it is made to keep the file, before the old one is gone. `DiskError`
    names the file.
    """
    with _named_in_errors(path), _partial(path) as partial:
        yield partial
        _keep(partial)
        partial.replace(path)


@contextmanager
def sealed_file(path: Path) -> Iterator[Path]:
    """A `whole_file` that is sealed at the end: what is written must hold `BLANK`, see `mdprop.seals`."""
    with whole_file(path) as partial:
        yield partial
        seal(partial)


def write_files(texts: Mapping[Path, str]) -> None:
    """Write all files, or none: each to a temporary name first, renamed once all are written.

    Folders are made as needed. `DiskError` names the file that cannot be written.
    """
    with contextlib.ExitStack() as partials:
        written = {}
        for path, text in texts.items():
            with _named_in_errors(path):
                written[path] = partials.enter_context(_partial(path))
                written[path].write_text(text, encoding="utf-8", newline="\n")
                _keep(written[path])
        for path, partial in written.items():
            with _named_in_errors(path):
                partial.replace(path)


@contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """An empty file beside `path`, removed at the end if it is still there."""
    partial = path.with_name(f".{path.name}.partial")
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        partial.write_bytes(b"")
        yield partial
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _keep(partial: Path) -> None:
    """Have the disk keep a file, or say that it cannot."""
    with partial.open("rb+") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # of file systems that know no such thing
                raise


@contextmanager
def _named_in_errors(path: Path) -> Iterator[None]:
    """Say `path` in what a disk refuses; the writer's errors do not name it, or its temporary name."""
    try:
        yield
    except OSError as error:
        own = (path, path.with_name(f".{path.name}.partial"), *path.parents)
        trouble = None
        if error.filename is None:
            trouble = disk_error(error, path)
        elif Path(os.fsdecode(error.filename)) in own:
            trouble = disk_error(error, path) or DiskError(
                f"{path} cannot be written ({error.strerror}): free the path or mend its permissions"
            )
        if trouble is None:
            raise
        raise trouble from None
