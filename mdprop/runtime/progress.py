"""How far a long task is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

from rich import progress
from rich.console import Console
from rich.text import Text

from mdprop.runtime.hardware import is_main

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 10.0
SECONDS_OF_RATE = 600.0
"""How far back a bar's rate looks: two items that take minutes each must fit in."""


def announce(text: str) -> None:
    """Say on standard output what begins: a mistake's line stands alone on standard error.

    Of several processes, one says it.
    """
    if is_main():
        print(text, flush=True)


def _say(text: str) -> None:
    if is_main():
        print(text, file=sys.stderr, flush=True)


def track(iterable: Iterable[T], description: str, total: int | None = None, unit: str = "") -> Iterator[T]:
    """Pass items on and show how far they are, see `counting`."""
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    with counting(description, total, unit) as count:
        yield from count.each(iterable)


class Count:
    """What is done of a task, in some unit; shows nothing by itself."""

    def __init__(self, task: str, total: int | None, unit: str) -> None:
        self.task, self.total, self.unit = task, total, unit
        self.part = ""
        self.done = 0

    @property
    def description(self) -> str:
        return f"{self.task}: {self.part}" if self.part else self.task

    def at(self, part: str) -> None:
        """Say from now on which part of the task it is."""
        self.part = part
        self.show()

    def each(self, iterable: Iterable[T], size: Callable[[T], int] = lambda item: 1) -> Iterator[T]:
        """Pass items on; one that comes back for the next has done as much as `size` says."""
        for item in iterable:
            yield item
            self.done += size(item)
            self.show()

    def show(self) -> None:
        """Say how far it is, if it is time for that."""


@contextmanager
def counting(task: str, total: int | None = None, unit: str = "") -> Iterator[Count]:
    """Show on standard error how far a task is, its rate and the time left, by what is counted meanwhile.

    A bar on a terminal; elsewhere a line every ten seconds or so, and one at the end. Of several
    processes, one shows it. An error ends it without a word.
    """
    if not is_main():
        yield Count(task, total, unit)
    elif sys.stderr.isatty():
        with _progress() as bar:
            yield _Bar(task, total, unit, bar)
    else:
        count = _Lines(task, total, unit)
        yield count
        count.end()


class _Lines(Count):
    def __init__(self, task: str, total: int | None, unit: str) -> None:
        super().__init__(task, total, unit)
        self.start = self.last = time.monotonic()

    def show(self) -> None:
        now = time.monotonic()
        if now - self.last >= SECONDS_BETWEEN_LINES and self.done != self.total:
            self.last = now
            seconds = now - self.start
            _say(_line(self.description, self.done, self.total, seconds, self.unit))

    def end(self) -> None:
        seconds = time.monotonic() - self.start
        _say(_line(self.task, self.done, None, seconds, self.unit))


class _Bar(Count):
    def __init__(self, task: str, total: int | None, unit: str, bar: progress.Progress) -> None:
        super().__init__(task, total, unit)
        self.bar, self.row = bar, bar.add_task(task, total=total, unit=unit)

    def show(self) -> None:
        self.bar.update(self.row, completed=self.done, description=self.description)


def _progress() -> progress.Progress:
    return progress.Progress(
        progress.TextColumn("{task.description}", markup=False),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.fields[unit]}"),
        _Rate(),
        progress.TimeRemainingColumn(elapsed_when_finished=True),
        console=Console(stderr=True),
        speed_estimate_period=SECONDS_OF_RATE,
    )


class _Rate(progress.ProgressColumn):
    def render(self, task: progress.Task) -> Text:
        overall = task.completed / task.elapsed if task.elapsed else 0.0
        speed = task.finished_speed or task.speed or overall
        return Text(_rate(speed) if speed else "")


def _line(description: str, done: int, total: int | None, seconds: float, unit: str = "") -> str:
    """
    >>> _line("preparing cub", 500, 2000, 10.0, "images")
    'preparing cub: 500/2000 images, 50.0/s, 30 s left'
    """
    rate, unit = done / max(seconds, 1e-9), unit and f" {unit}"
    if total is None or done >= total:
        return f"{description}: {done}{unit} in {seconds:.1f} s, {_rate(rate)}"
    left = f", {_duration((total - done) / rate)} left" if done else ""
    return f"{description}: {done}/{total}{unit}, {_rate(rate)}{left}"


def _duration(seconds: float) -> str:
    """
    >>> _duration(90.0), _duration(1500.0), _duration(9000.0)
    ('90 s', '25 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _rate(per_second: float) -> str:
    """
    >>> _rate(1234.56), _rate(0.25), _rate(0.0)
    ('1,234.6/s', '4.0 s each', '0.0/s')
    """
    return f"{1 / per_second:,.1f} s each" if 0 < per_second < 1 else f"{per_second:,.1f}/s"
