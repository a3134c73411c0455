from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import multiprocessing

from tests.parallel.together import Results, in_a_pair


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("parallel")
    return path


@pytest.fixture(scope="module")
def both(request: pytest.FixtureRequest, folder: Path) -> list[Results]:
    """What each of two processes found."""
    multiprocessing.spawn(in_a_pair, (request.module.__name__, folder), nprocs=2)
    return [torch.load(folder / f"results {number}.pt") for number in range(2)]


@pytest.fixture(scope="module")
def alone(request: pytest.FixtureRequest, folder: Path) -> Iterator[Results]:
    """What one process finds; in one thread too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield request.module.CASES.run(folder)
    torch.set_num_threads(threads)
