"""How far a long task is."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich import progress
from rich.console import Console
from rich.text import Text

from mdprop.runtime.hardware import is_main

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 10.0


def track(iterable: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Pass items on and show on standard error how far they are, their rate and the time left.

    A bar on a terminal; elsewhere a line every ten seconds or so, and one at the end. Of several
    processes, one shows it.
    """
    if not is_main():
        yield from iterable
        return
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    show = _bar if sys.stderr.isatty() else _lines
    yield from show(iterable, description, total)


class _Rate(progress.ProgressColumn):
    def render(self, task: progress.Task) -> Text:
        return Text(_rate(task.finished_speed or task.speed or 0.0))


def _bar(iterable: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        _Rate(),
        progress.TimeRemainingColumn(elapsed_when_finished=True),
    )
    with progress.Progress(*columns, console=Console(stderr=True)) as bar:
        yield from bar.track(iterable, total=total, description=description)


def _lines(iterable: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    start = last = time.monotonic()
    done = 0
    for item in iterable:
        yield item
        done += 1
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES and done != total:
            last = now
            print(_line(description, done, total, now - start), file=sys.stderr, flush=True)
    print(_line(description, done, total, time.monotonic() - start), file=sys.stderr, flush=True)


def _line(description: str, done: int, total: int | None, seconds: float) -> str:
    """
    >>> _line("preparing cub", 500, 2000, 10.0)
    'preparing cub: 500/2000, 50.0/s, 30 s left'
    """
    rate = done / max(seconds, 1e-9)
    if total is None or done >= total:
        return f"{description}: {done} in {seconds:.1f} s, {_rate(rate)}"
    left = f", {(total - done) / rate:.0f} s left" if done else ""
    return f"{description}: {done}/{total}, {_rate(rate)}{left}"


def _rate(per_second: float) -> str:
    """
    >>> _rate(1234.56), _rate(0.25), _rate(0.0)
    ('1,234.6/s', '4.0 s each', '0.0/s')
    """
    return f"{1 / per_second:,.1f} s each" if 0 < per_second < 1 else f"{per_second:,.1f}/s"
