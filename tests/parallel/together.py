"""Cases that one process runs, and two together, on the CPU.

Starting two takes seconds, so all the cases of a test module run in one pair, and each test looks at
one result. A module says `CASES = Cases()`, registers with `@CASES.case(name)`, and its tests take the
fixtures `both` and `alone`.
"""

from __future__ import annotations

import datetime
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed
from torch.testing import assert_close

from mdprop.parallel.exchange import gather_rows, rank, world_size

Results = dict[str, Any]
Case = Callable[[Path], Any]


class Cases(dict[str, Case]):
    def case(self, name: str) -> Callable[[Case], Case]:
        def register(run: Case) -> Case:
            self[name] = run
            return run

        return register

    def run(self, folder: Path) -> Results:
        return {name: run(folder) for name, run in self.items()}


def in_a_pair(number: int, module: str, folder: Path) -> None:
    """Run the cases of a test module as process `number` of two."""
    torch.set_num_threads(1)
    store = distributed.FileStore(str(folder / "rendezvous"), 2)
    patience = datetime.timedelta(seconds=60)
    distributed.init_process_group("gloo", store=store, rank=number, world_size=2, timeout=patience)
    torch.save(importlib.import_module(module).CASES.run(folder), folder / f"results {number}.pt")
    distributed.destroy_process_group()


def assert_all_close(both: list[Results], alone: Results, name: str, **tolerance: Any) -> None:
    for results in both:
        assert_close(results[name], alone[name], **tolerance)


def numbered(*shape: int, seed: int = 5) -> Tensor:
    """The same random numbers in every process."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def own_rows(whole: Tensor) -> Tensor:
    return whole.chunk(world_size())[rank()]


def all_rows(own: Tensor) -> Tensor:
    return gather_rows(own) if world_size() > 1 else own
