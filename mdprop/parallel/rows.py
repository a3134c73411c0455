"""Which rows of a training batch are whose: which slice's, which branch's, which process's."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from mdprop.errors import ParameterError
from mdprop.methods import Method, Slice
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


@dataclass(frozen=True)
class Part:
    """An adversarial slice: its rows among this process's attacked ones, and among those of all."""

    settings: Slice
    own: slice
    whole: slice


@dataclass(frozen=True)
class BatchRows:
    """The rows of a batch of clean images followed by its adversarial slices.

    routes: {branch: rows} of this process's whole batch; attacked_routes: of its adversarial slices.
    sources: the clean rows that the adversarial ones are made from.
    parts: the adversarial slices that have rows.
    batch, attacked: this process's share of the whole batch, and of the adversarial slices alone.
    """

    routes: dict[str, int]
    attacked_routes: dict[str, int]
    sources: Tensor
    parts: tuple[Part, ...]
    batch: Share
    attacked: Share


def batch_rows(method: Method, rows: int) -> BatchRows:
    """Of a batch of which this process holds `rows` clean images."""
    return _batch_rows(method, rows, rank(), world_size())


@functools.lru_cache(maxsize=8)
def _batch_rows(method: Method, rows: int, rank: int, processes: int) -> BatchRows:
    sizes, members, all_members = method.sizes(rows), method.members(rows), method.members(rows * processes)
    parts = []
    start = 0
    for part, own in zip(method.adversarial, members, strict=True):
        stop = start + len(own)
        if own:
            parts.append(Part(part, slice(start, stop), slice(start * processes, stop * processes)))
        start = stop
    if processes == 1:
        batch, attacked = Share(rows + start, None, None), Share(start, None, None)
    else:
        places = _places(members, all_members, rows * processes, processes)
        batch = _share(places, rank)
        attacked = _share([[place - rows * processes for place in own[rows:]] for own in places], rank)
    return BatchRows(
        routes=_routes(method.slices, sizes),
        attacked_routes=_routes(method.slices[1:], sizes[1:]),
        sources=torch.tensor([row for own in members for row in own], dtype=torch.int64),
        parts=tuple(parts),
        batch=batch,
        attacked=attacked,
    )


def _routes(slices: tuple[Slice, ...], sizes: list[int]) -> dict[str, int]:
    """The rows of each branch, in order."""
    routes: dict[str, int] = {}
    for part, size in zip(slices, sizes, strict=True):
        routes[part.branch] = routes.get(part.branch, 0) + size
    return routes


def clean_rows(method: Method, batch_size: int) -> list[int]:
    """The rows of the clean batch of `batch_size` that this process trains on.

    The batch is cut where the adversarial slices' rows begin and end, and each piece into
    equal parts, so that every process has its part of every slice and its batch is a smaller
    one of the same method: of 64 rows, process 0 of 2 has 0-15 and 32-47 under mdprop.

    Raises `ParameterError` where that cannot be.
    """
    if not _divides(method, batch_size, world_size()):
        named = zip(method.slices, method.sizes(batch_size), strict=True)
        sizes = ", ".join(f"{size} {part.name}" for part, size in named)
        fits = next(n for n in range(batch_size, 2**30) if _divides(method, n, world_size()))
        raise ParameterError(
            f"train.batch_size = {batch_size}: {world_size()} processes cannot have equal parts of method "
            f"{method.name}'s {sizes}; use batch_size {fits}, or another number in MDPROP_PROCESSES"
        )
    return _clean_rows(method.members(batch_size), batch_size, world_size())[rank()]


def _share(places: list[list[int]], rank: int) -> Share:
    everyone = torch.tensor([place for own in places for place in own], dtype=torch.int64)
    return Share(len(everyone), torch.tensor(places[rank], dtype=torch.int64), everyone.argsort())


def _places(
    members: list[list[int]], all_members: list[list[int]], batch_size: int, processes: int
) -> list[list[int]]:
    """Where each process's rows lie in the whole batch: clean rows, then slice after slice.

    members: of each slice, the clean rows of a process; all_members: those of the whole batch.
    """
    clean = _clean_rows(all_members, batch_size, processes)
    found = [list(rows) for rows in clean]
    start = batch_size
    for everyone, own in zip(all_members, members, strict=True):
        where = {row: start + i for i, row in enumerate(everyone)}
        for places, rows in zip(found, clean, strict=True):
            places += [where[rows[i]] for i in own]
        start += len(everyone)
    return found


def _clean_rows(members: list[list[int]], batch_size: int, processes: int) -> list[list[int]]:
    """The clean rows of each process."""
    pieces = list(pairwise(_cuts(members, batch_size)))
    return [
        [a + i for a, b in pieces for i in range((b - a) * r // processes, (b - a) * (r + 1) // processes)]
        for r in range(processes)
    ]


def _cuts(members: list[list[int]], batch_size: int) -> list[int]:
    """Where the rows of adversarial slices begin and end in the clean batch."""
    return sorted({0, batch_size} | {end % batch_size for end in accumulate(map(len, members))})


def _divides(method: Method, batch_size: int, processes: int) -> bool:
    if batch_size % processes:
        return False
    whole, part = method.sizes(batch_size), method.sizes(batch_size // processes)
    equal = all(size == processes * own for size, own in zip(whole, part, strict=True))
    return equal and all(cut % processes == 0 for cut in _cuts(method.members(batch_size), batch_size))
