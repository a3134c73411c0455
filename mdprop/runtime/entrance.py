"""How every command begins and ends."""

from __future__ import annotations

import functools
import io
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from mdprop.errors import disk_error, reports_errors


def run_stage(stage: Callable[[], object]) -> None:
    """Run a stage's command line, in the one process or in each of several.

    A mistake of the user, or a disk that takes no more, ends it with one line and exit code 2. Stopped
    by Ctrl-C or SIGTERM it ends with one line and 130 or 143, after files that are half-written are
    removed. A stream that cannot show a character, such as ε, gets a "?".
    """
    signal.signal(signal.SIGTERM, _stop)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    tune_libraries()
    reports_errors(_flushed)(functools.partial(_stoppable, stage))


def _stoppable(stage: Callable[[], object]) -> None:
    """Run a stage, and say in one line that somebody stopped it."""
    try:
        stage()
    except (KeyboardInterrupt, SystemExit) as end:
        code = 128 + signal.SIGINT if isinstance(end, KeyboardInterrupt) else end.code
        if code in _STOPPED:
            print(f"{_STOPPED[code]}: the same command goes on", file=sys.stderr)
            raise SystemExit(code) from None
        raise


_STOPPED: dict[object, str] = {128 + signal.SIGINT: "interrupted", 128 + signal.SIGTERM: "terminated"}


def _flushed(stage: Callable[[], object]) -> None:
    """Run a stage, and find out here, not as the interpreter ends, that a log's disk is full."""
    try:
        stage()
    finally:
        try:
            if sys.stdout:
                sys.stdout.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter tries again, and complains
            if isinstance(error, BrokenPipeError):  # who reads has seen enough
                raise SystemExit(128 + signal.SIGPIPE) from None
            raise disk_error(error, "standard output") or error from None


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


def tune_libraries() -> None:
    """Set what torch and Arrow read once, when they are loaded; what is set in the environment stays.

    GNU OpenMP's threads spin for milliseconds before they sleep, which makes a step several times
    slower as soon as another process wants the cores. Arrow's own allocator breaks the heap into
    pieces, where the C library's memory is given back between batches: with it the peak of embedding
    grew with the number of images.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
