"""Which rows of a training batch are whose: which slice's, which branch's, which process's."""

from __future__ import annotations

import functools
from collections.abc import Sequence
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

    def of(self, whole: Tensor) -> Tensor:
        """This process's rows of the whole."""
        return whole if self.places is None else whole[self.places.to(whole.device)]

    def together(self, own: Tensor) -> Tensor:
        """The whole, in its order, from all processes' rows; see `gather_rows` for the gradient."""
        return own if self.order is None else gather_rows(own)[self.order.to(own.device)]


@dataclass(frozen=True)
class Part:
    """An adversarial slice of a batch.

    own, whole: its rows among this process's attacked ones, and among those of all.
    places: [A], where its own rows lie in the whole slice.
    learned: its rows in the whole batch, which is learned from.
    clean: the rows there that they are made from.
    """

    settings: Slice
    own: slice
    whole: slice
    places: Tensor
    learned: slice
    clean: Tensor


@dataclass(frozen=True)
class BatchRows:
    """The rows of a batch of clean images followed by its adversarial slices.

    Slices are attacked in an order of their own, in which those made through one branch lie side by side.

    routes: {branch: rows} of this process's whole batch; attacked_routes: of what it attacks.
    sources: the clean rows that the attacked ones are made from.
    parts: the adversarial slices that have rows, in the order of the attack.
    batch, attacked: this process's share of the whole batch, and of what is attacked.
    back: where the rows of the batch, in its order, lie among the attacked ones; None where orders agree.
    """

    routes: dict[str, int]
    attacked_routes: dict[str, int]
    sources: Tensor
    parts: tuple[Part, ...]
    batch: Share
    attacked: Share
    back: Tensor | None

    def in_batch_order(self, attacked: Tensor) -> Tensor:
        """Rows of the attack in the order in which they are learned from."""
        return attacked if self.back is None else attacked[self.back.to(attacked.device)]


def batch_rows(method: Method, rows: int) -> BatchRows:
    """Of a batch of which this process holds `rows` clean images."""
    return _batch_rows(method, rows, rank(), world_size())


@functools.lru_cache(maxsize=8)
def _batch_rows(method: Method, rows: int, rank: int, processes: int) -> BatchRows:
    size = rows * processes
    members, everyone = method.members(rows), method.members(size)
    clean = _clean_rows(everyone, size, processes)
    batch = _share(_places(clean, [[*range(rows)], *members], [[*range(size)], *everyone]), rank)
    branches = [part.attacked_branch for part in method.adversarial]
    order = sorted(range(len(branches)), key=lambda i: method.branches.index(branches[i]))
    attacked, all_attacked = [members[i] for i in order], [everyone[i] for i in order]
    share = _share(_places(clean, attacked, all_attacked), rank)
    numbers, learned = share.of(torch.arange(share.count)), _spans(everyone, size)
    parts = [
        Part(
            settings=method.adversarial[i],
            own=own,
            whole=whole,
            places=numbers[own] - whole.start,
            learned=learned[i],
            clean=torch.tensor(everyone[i], dtype=torch.int64),
        )
        for i, own, whole in zip(order, _spans(attacked), _spans(all_attacked), strict=True)
        if members[i]
    ]
    return BatchRows(
        routes=_routes([part.branch for part in method.slices], method.sizes(rows)),
        attacked_routes=_routes([branches[i] for i in order], [len(own) for own in attacked]),
        sources=torch.tensor([row for own in attacked for row in own], dtype=torch.int64),
        parts=tuple(parts),
        batch=batch,
        attacked=share,
        back=_back(order, _spans(attacked)),
    )


def _routes(branches: Sequence[str], sizes: Sequence[int]) -> dict[str, int]:
    """The rows of each branch, in order."""
    routes: dict[str, int] = {}
    for branch, size in zip(branches, sizes, strict=True):
        routes[branch] = routes.get(branch, 0) + size
    return routes


def _spans(members: Sequence[Sequence[int]], start: int = 0) -> list[slice]:
    """Where slices of these rows lie, one after the other."""
    ends = list(accumulate(map(len, members), initial=start))
    return [slice(a, b) for a, b in pairwise(ends)]


def _back(order: Sequence[int], spans: Sequence[slice]) -> Tensor | None:
    """The rows of the method's slices, one after the other; those numbered `order` lie in `spans`."""
    if list(order) == sorted(order):
        return None
    rows = dict(zip(order, spans, strict=True))
    return torch.cat([torch.arange(rows[i].start, rows[i].stop) for i in sorted(order)])


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
    if len(places) == 1:
        return Share(len(everyone), None, None)
    return Share(len(everyone), torch.tensor(places[rank], dtype=torch.int64), everyone.argsort())


def _places(clean: list[list[int]], members: list[list[int]], everyone: list[list[int]]) -> list[list[int]]:
    """Where each process's rows lie among slices that follow each other.

    clean: the clean rows of each process. members: of each slice, the clean rows of a process;
    everyone: those of the whole batch.
    """
    found: list[list[int]] = [[] for _ in clean]
    for all_rows, own, span in zip(everyone, members, _spans(everyone), strict=True):
        where = {row: span.start + i for i, row in enumerate(all_rows)}
        for places, rows in zip(found, clean, strict=True):
            places += [where[rows[i]] for i in own]
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
