"""The curves of a training, kept by dvclive."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from mdprop.runtime.hardware import is_main

Record = Callable[[int, Mapping[str, float]], None]


@contextmanager
def recorded(folder: str) -> Iterator[Record]:
    """A function that adds an epoch's values to the curves in `folder`; of several processes, one does."""
    if not is_main():
        yield lambda epoch, values: None
        return
    from dvclive import Live

    with Live(folder, dvcyaml=None, save_dvc_exp=False) as live:

        def record(epoch: int, values: Mapping[str, float]) -> None:
            live.step = epoch
            for name, value in values.items():
                live.log_metric(name, value)
            live.make_summary()

        yield record
