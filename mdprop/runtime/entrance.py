"""How every command begins and ends."""

from __future__ import annotations

import atexit
import functools
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from mdprop.errors import disk_error, reports_errors
from mdprop.runtime.aside import forget_noted, started_by_dvc
from mdprop.runtime.hardware import launcher, started_by_torchrun


def run_stage(stage: Callable[[], object]) -> None:
    """Run a stage's command line, in the one process or in each of several.

    A mistake of the user, or a disk that takes no more, ends it with one line and exit code 2. Stopped
    by Ctrl-C or SIGTERM it ends with one line and 130 or 143, after files that are half-written are
    removed; so it does where the dvc, or the process of several, that started it is gone. A stream that
    cannot show a character, such as ε, gets a "?".
    """
    signal.signal(signal.SIGTERM, _stop)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    tune_libraries()
    if started_by_torchrun() or started_by_dvc():
        _end_after(launcher() or os.getppid())
    reports_errors(_stoppable)(functools.partial(_to_its_end, stage))


def _to_its_end(stage: Callable[[], object]) -> None:
    try:
        with _last_steps() as last:
            if started_by_dvc():
                from mdprop.runtime.state import states_folder

                at_last(functools.partial(forget_noted, states_folder()))
            _flushed(stage)
    except SystemExit as end:
        if end.code or not last:
            raise
    if last:
        _end(last)


def _end_after(parent: int) -> None:
    """End this process when the one that started it ends, which may have no time to tell."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_SECONDS_TO_END)
        os._exit(128 + signal.SIGTERM)  # it may wait for another one, and not see the signal

    threading.Thread(target=watch, daemon=True).start()


_SECONDS_BETWEEN_LOOKS, _SECONDS_TO_END = 0.2, 5.0


_last: list[Callable[[], object]] | None = None


@contextmanager
def _last_steps() -> Iterator[list[Callable[[], object]]]:
    global _last
    _last = []
    try:
        yield _last
    finally:
        _last = None


def at_last(step: Callable[[], object]) -> None:
    """Have `step` called where nothing can be lost any more: as a stage that did well ends, else now.

    A stage that is killed before is run again by the same command, and finds what `step` would remove.
    """
    if _last is None:
        step()
    else:
        _last.append(step)


def _end(last: list[Callable[[], object]]) -> NoReturn:
    """End the process with its last steps, as taking apart torch takes a second in which it may be killed.

    They are short, and the stage did well: Ctrl-C and SIGTERM come too late for them.
    """
    for late in (signal.SIGINT, signal.SIGTERM):
        signal.signal(late, signal.SIG_IGN)
    atexit._run_exitfuncs()
    for step in last:
        step()
    os._exit(0)


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
