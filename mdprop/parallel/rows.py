"""Which rows of a training batch each process holds."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from mdprop.errors import ParameterError
from mdprop.methods import CLEAN, Method
from mdprop.parallel.exchange import gather_rows, rank, world_size


@dataclass(frozen=True)
class Share:
    """The rows that this process holds of a whole that all hold together.

    count: rows of the whole.
    places: where this process's rows lie in the whole; None where it holds all.
    order: where the rows of the whole lie among those of process 0, 1, …
    """

    count: int
    places: Tensor | None
    order: Tensor | None

    def of(self, whole: Tensor, dim: int = 0) -> Tensor:
        """This process's rows (or columns) of the whole."""
        return whole if self.places is None else whole.index_select(dim, self.places.to(whole.device))

    def together(self, own: Tensor) -> Tensor:
        """The whole, in its order, from all processes' rows; see `gather_rows` for the gradient."""
        return own if self.order is None else gather_rows(own)[self.order.to(own.device)]


def clean_rows(method: Method, batch_size: int) -> list[int]:
    """The rows of the clean batch of `batch_size` that this process trains on.

    The batch is cut where the adversarial distributions' rows begin and end, and each piece into
    equal parts, so that every process has its part of every distribution and its batch is a smaller
    one of the same method: of 64 rows, process 0 of 2 has 0-15 and 32-47 under mdprop.

    Raises `ParameterError` where that cannot be.
    """
    if not _divides(method, batch_size, world_size()):
        sizes = ", ".join(f"{n} {name}" for name, n in method.slices(batch_size).items())
        fits = next(n for n in range(batch_size, 2**30) if _divides(method, n, world_size()))
        raise ParameterError(
            f"train.batch_size = {batch_size}: {world_size()} processes cannot have equal parts of method "
            f"{method.name}'s {sizes}; use batch_size {fits}, or another number in MDPROP_PROCESSES"
        )
    return _clean_rows(method, batch_size, world_size())[rank()]


def batch_share(method: Method, rows: int) -> Share:
    """Of a batch of which this process holds `rows` clean rows: the clean and the adversarial ones."""
    return _shares(method, rows, rank(), world_size())[0]


def attacked_share(method: Method, rows: int) -> Share:
    """The same of the adversarial ones alone."""
    return _shares(method, rows, rank(), world_size())[1]


@functools.lru_cache(maxsize=8)
def _shares(method: Method, rows: int, rank: int, processes: int) -> tuple[Share, Share]:
    total = sum(method.slices(rows).values()) * processes
    clean = rows * processes
    if processes == 1:
        return Share(total, None, None), Share(total - clean, None, None)
    places = _places(method, clean, processes)
    attacked = [[place - clean for place in own[rows:]] for own in places]
    return _share(places, rank), _share(attacked, rank)


def _share(places: list[list[int]], rank: int) -> Share:
    everyone = torch.tensor([place for own in places for place in own], dtype=torch.int64)
    return Share(len(everyone), torch.tensor(places[rank], dtype=torch.int64), everyone.argsort())


def _places(method: Method, batch_size: int, processes: int) -> list[list[int]]:
    """Where each process's rows lie in the whole batch: clean rows, then slice after slice."""
    clean = _clean_rows(method, batch_size, processes)
    found = [list(rows) for rows in clean]
    start = batch_size
    slices = zip(method.rows(batch_size), method.rows(batch_size // processes), strict=True)
    for (_, members), (_, own) in slices:
        where = {row: start + i for i, row in enumerate(members)}
        for places, rows in zip(found, clean, strict=True):
            places += [where[rows[i]] for i in own]
        start += len(members)
    return found


def _clean_rows(method: Method, batch_size: int, processes: int) -> list[list[int]]:
    pieces = list(pairwise(_cuts(method, batch_size)))
    return [
        [a + i for a, b in pieces for i in range((b - a) * r // processes, (b - a) * (r + 1) // processes)]
        for r in range(processes)
    ]


def _divides(method: Method, batch_size: int, processes: int) -> bool:
    if batch_size % processes:
        return False
    whole, part = method.slices(batch_size), method.slices(batch_size // processes)
    equal = all(size == processes * part[name] for name, size in whole.items())
    return equal and all(cut % processes == 0 for cut in _cuts(method, batch_size))


def _cuts(method: Method, batch_size: int) -> list[int]:
    sizes = [n for name, n in method.slices(batch_size).items() if name != CLEAN]
    return sorted({0, batch_size} | {end % batch_size for end in accumulate(sizes)})
