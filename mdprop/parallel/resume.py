"""One process, or one group of several, at a time at a task whose state is kept."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mdprop.parallel.exchange import from_main, rank, world_size
from mdprop.runtime.entrance import at_last
from mdprop.runtime.hardware import launcher
from mdprop.runtime.state import State, say

SECONDS_BETWEEN_LOOKS = 0.5


@contextmanager
def kept(name: str, identity: Mapping[str, Any]) -> Iterator[State]:
    """The `State` of a task, for these processes alone; removed where they end without an error.

    Another process that does the same waits here, and finds what this one has done: in two copies of
    the project the work is done once, and a process that outlived its `dvc` is not disturbed.

    identity: as `State` takes it; the number of processes is added, as sums depend on it.
    """
    state = State(name, {**identity, "processes": world_size()})
    try:
        waited = False
        while not from_main(rank() or state.acquire()):
            if not rank() and not waited:
                say(f"another process is at {name} with the same parameters: waiting for what it finds")
            waited = True
            time.sleep(SECONDS_BETWEEN_LOOKS)
        if not rank():
            for folder, differing in state.others():
                say(
                    f"{folder} is the state of an interrupted {name} with other {', '.join(differing)}: "
                    "it is not used now; remove it if you do not go back to that"
                )
        yield state
    except BaseException:
        if not rank() and state.empty:
            state.finish()
        state.release()
        raise
    started_by = launcher()
    if not rank() and started_by is not None:
        state.leave_to(started_by)
    elif not rank():
        at_last(state.finish)
