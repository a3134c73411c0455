"""One stage in several processes: started by `$MDPROP_PROCESSES`, or by torchrun itself."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING, NoReturn, ParamSpec

from mdprop.errors import EXIT_CODE, MDPropError, ParameterError, one_line

if TYPE_CHECKING:
    from torch.distributed import Store

P = ParamSpec("P")

PATIENCE = timedelta(minutes=30)
"""How long a process waits for another one that is alive; a dead one ends all at once."""


def processes() -> int:
    """`$MDPROP_PROCESSES`, else 1. Raises `ParameterError` for what is no number from 1."""
    value = os.environ.get("MDPROP_PROCESSES") or "1"
    if not value.isdecimal() or int(value) < 1:
        raise ParameterError(f"MDPROP_PROCESSES={value}: a number from 1 is needed")
    return int(value)


def in_processes(command: Callable[P, None]) -> Callable[P, None]:
    """Run a stage's command in `processes()` processes on this machine, or as one of torchrun's.

    They are started as the stage was: the same module, the same arguments. A mistake of the user
    is said once, by the process that meets it first, and its exit code is the stage's. Where one
    process dies, all end.
    """

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        if "RANK" in os.environ:
            _take_part(functools.partial(command, *args, **kwargs))
        elif (count := processes()) > 1:
            _start(count)
        else:
            command(*args, **kwargs)

    return wrapper


def _start(count: int) -> None:
    """Start this program `count` times by torchrun's agent, and wait; `SystemExit` where it failed."""
    import logging
    import signal
    import uuid

    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.CRITICAL)  # the agent's own report; the processes say what is wrong
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // count)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="localhost",
        max_restarts=0,
    )
    spec = sys.modules["__main__"].__spec__
    assert spec is not None, "a stage runs as python -m stages.<name>"
    try:
        elastic_launch(config, sys.executable)("-m", spec.name, *sys.argv[1:])
    except SignalException as stop:
        if stop.sigval == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(128 + stop.sigval) from None
    except ChildFailedError as error:
        local_rank, failure = min(error.failures.items(), key=lambda item: item[1].exitcode)
        if failure.exitcode > 0:
            raise SystemExit(failure.exitcode) from None
        killed = signal.Signals(-failure.exitcode)
        print(f"error: process {local_rank} of {count} was killed by {killed.name}", file=sys.stderr)
        raise SystemExit(128 + killed) from None


def _take_part(command: Callable[[], None]) -> None:
    """Join the other processes, run the command, and leave together."""
    import signal

    from torch import distributed

    for number in (signal.SIGINT, signal.SIGTERM):  # the agent passes on what it gets
        signal.signal(number, _leave)
    store, rank, world_size = next(distributed.rendezvous("env://", timeout=PATIENCE))
    try:
        _join(store, rank, world_size)
        command()
        distributed.barrier()
        distributed.destroy_process_group()
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)
    except BaseException as error:
        first, code = _first_failure(store, rank, EXIT_CODE if isinstance(error, MDPropError) else 1)
        _fail(error, first == rank, code)


def _join(store: Store, rank: int, world_size: int) -> None:
    import torch
    from torch import distributed

    from mdprop.runtime.hardware import device

    place = device()
    if place.type == "cuda":
        torch.cuda.set_device(place)
    backend = "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo"
    distributed.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=PATIENCE)


def _first_failure(store: Store, rank: int, code: int) -> tuple[int, int]:
    """Rank and exit code of the process that failed first: this one's where no other has, or none answers."""
    try:
        first, its_code = store.compare_set("failed first", "", f"{rank} {code}").split()
        return int(first), int(its_code)
    except RuntimeError:
        return rank, code


def _fail(error: BaseException, first: bool, code: int) -> NoReturn:
    """End at once: an ordinary exit would wait for messages of processes that are gone."""
    if first and isinstance(error, MDPropError):
        print(f"error: {one_line(error)}", file=sys.stderr)
    elif first:
        sys.excepthook(type(error), error, error.__traceback__)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    """Leave as on an error, so that no file is left half-written."""
    raise SystemExit(128 + number)
