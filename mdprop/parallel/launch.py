"""One stage in several processes: started by `$MDPROP_PROCESSES`, or by torchrun itself."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, NoReturn, ParamSpec

from mdprop.errors import EXIT_CODE, mistake_in, say
from mdprop.runtime.entrance import at_last
from mdprop.runtime.hardware import (
    LAUNCHER,
    check_torchrun,
    count_from_environment,
    device,
    started_by_torchrun,
)

if TYPE_CHECKING:
    from torch.distributed import Store

P = ParamSpec("P")

PATIENCE = timedelta(minutes=30)
"""How long a process waits for another one that is alive; a dead one ends all at once."""


def processes() -> int:
    """`$MDPROP_PROCESSES`, else 1. Raises `ParameterError` for what is no number from 1, or too large."""
    return count_from_environment("MDPROP_PROCESSES", 1)


def in_processes(command: Callable[P, None]) -> Callable[P, None]:
    """Run a stage's command in `processes()` processes on this machine, or as one of torchrun's.

    They are started as the stage was: the same module, the same arguments. A mistake of the user
    is said once, by the process that meets it first, and its exit code is the stage's. Where one
    process dies, all end, and so they do where the one that started them dies.
    """

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        if started_by_torchrun():
            check_torchrun()
            _take_part(functools.partial(command, *args, **kwargs))
        elif (count := processes()) > 1:
            _start(count)
        else:
            command(*args, **kwargs)

    return wrapper


def _start(count: int) -> None:
    """Have torchrun start this program `count` times, and wait; `SystemExit` where one failed."""
    import logging

    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    from mdprop.runtime.state import remove_left_to

    logging.disable(logging.CRITICAL)  # torchrun's own report; the processes say what is wrong
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // count)))
    spec = sys.modules["__main__"].__spec__
    assert spec is not None, "a stage runs as python -m stages.<name>"
    os.environ[LAUNCHER] = str(os.getpid())
    options = ["--standalone", "--local-addr=localhost", f"--nproc-per-node={count}"]
    options += [f"--log-dir={os.devnull}", "--module", spec.name]
    try:
        run.run(run.parse_args([*options, *sys.argv[1:]]))
        at_last(functools.partial(remove_left_to, os.getpid()))
    except SignalException as stop:
        if stop.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(128 + stop.sigval) from None
    except ChildFailedError as error:
        number, failure = min(error.failures.items(), key=lambda item: item[1].exitcode)
        if failure.exitcode > 0:
            raise SystemExit(failure.exitcode) from None
        name = failure.signal_name()
        print(f"error: process {number} of {count} was killed by {name}", file=sys.stderr)
        raise SystemExit(128 - failure.exitcode) from None


def _take_part(command: Callable[[], None]) -> None:
    """Join the other processes, run the command, and leave together."""
    stop = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # until there is something to leave in order
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # which is ignored where the stage runs in the background
    import torch
    from torch import distributed

    store, rank, world_size = next(distributed.rendezvous("env://", timeout=PATIENCE))
    try:
        try:
            signal.signal(signal.SIGTERM, stop)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            place = device()
            if place.type == "cuda":
                torch.cuda.set_device(place)
            backend = "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo"
            distributed.init_process_group(
                backend, store=store, rank=rank, world_size=world_size, timeout=PATIENCE
            )
            command()
            distributed.barrier()
            distributed.destroy_process_group()
        except BaseException as error:
            _end(error, store)
    except SystemExit as late:  # the agent's signal, where another error has just begun to end this process
        _end(late, store)


def _end(error: BaseException, store: Store) -> NoReturn:
    """End at once, as an ordinary exit would wait for messages of processes that are gone.

    The first process to fail says why, and has the least exit code; those that it takes along end
    as those that are stopped.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the agent's, which would cut short what is said here
    first = not isinstance(error, SystemExit | KeyboardInterrupt)
    with contextlib.suppress(RuntimeError):  # the store may be gone
        first = first and store.add("failed", 1) == 1
    mistake = mistake_in(error)
    if first and mistake:
        say(mistake)
    elif first:
        sys.excepthook(type(error), error, error.__traceback__)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit((EXIT_CODE if mistake else 1) if first else 128 + signal.SIGTERM)
