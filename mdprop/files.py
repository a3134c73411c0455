"""Files that appear when they are whole, and JSON read with one-line errors."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mdprop.errors import ResultError


def read_json(path: Path, remedy: str) -> dict[str, Any]:
    """The JSON object in `path`; `ResultError` names the file and the `remedy`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ResultError(f"{path} not found: {remedy}") from None
    except OSError as error:
        raise ResultError(f"{path} cannot be read ({error.strerror}): {remedy}") from None
    except ValueError as error:
        raise ResultError(f"{path} is not valid JSON ({error}): {remedy}") from None
    if not isinstance(content, dict):
        raise ResultError(f"{path} must hold a JSON object, not {type(content).__name__}: {remedy}")
    return content


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` to write to; renamed at the end, removed on an error."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_files(texts: Mapping[Path, str]) -> None:
    """Write all files, or none: each to a temporary name first, renamed once all are written.

    Folders are made as needed. `ResultError` names the file that the file system refuses.
    """
    temporary = {path: path.with_name(path.name + ".part") for path in texts}
    path = Path()
    try:
        for path, text in texts.items():
            if path.is_dir():
                raise ResultError(f"{path} is a folder: a file is to be written there, move it away")
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary[path].write_text(text, encoding="utf-8", newline="\n")
        for path in texts:
            temporary[path].replace(path)
    except OSError as error:
        raise ResultError(
            f"{path} cannot be written ({error.strerror}): free the path or mend its permissions"
        ) from None
    finally:
        for part in temporary.values():
            if part.is_file():
                part.unlink()
