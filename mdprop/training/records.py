"""The curves of a training, kept by dvclive."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from mdprop.errors import disk_error
from mdprop.runtime.hardware import is_main
from mdprop.runtime.state import file_digest

Record = Callable[[int, Mapping[str, float]], None]


@contextmanager
def recorded(folder: str) -> Iterator[Record]:
    """A function that adds an epoch's values to new curves in `folder`; of several processes, one does.

    `DiskError` where the file system refuses.
    """
    if not is_main():
        yield lambda epoch, values: None
        return
    with _named(folder):
        from dvclive import Live

        live = Live(folder, dvcyaml=None, save_dvc_exp=False)

    def record(epoch: int, values: Mapping[str, float]) -> None:
        with _named(folder):
            live.step = epoch
            for name, value in values.items():
                live.log_metric(name, value)
            live.make_summary()

    try:
        yield record
    finally:
        with _named(folder):
            live.end()


def curve_digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of each curve in `folder`, by its path there: dvclive's tables have no room for one."""
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in sorted(folder.rglob("*.tsv"))}


@contextmanager
def _named(folder: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise disk_error(error, folder) or error from None
