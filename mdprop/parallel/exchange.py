"""What the processes of one stage tell each other; a process that is alone has nothing to tell.

`mdprop.parallel.launch` starts them and makes the process group that is used here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")

CPU = torch.device("cpu")


def world_size() -> int:
    """The number of processes."""
    return distributed.get_world_size() if _together() else 1


def rank() -> int:
    """The number of this process; 0 is the one that writes."""
    return distributed.get_rank() if _together() else 0


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized()


# --- work in turns ---


def turns() -> slice:
    """Which of a sequence of tasks are this process's: process r of P does r, r + P, r + 2 P, …"""
    return slice(rank(), None, world_size())


def write_in_order(write: Callable[[Iterable[T]], object], own: Iterable[T]) -> None:
    """Write one file from all processes: `write` runs in process 0, on the results of all, see `in_order`.

    own: the results of this process's `turns`. In the other processes this returns when theirs are
        taken, which may be before the file is whole.
    """
    if rank():
        send(own)
    else:
        write(in_order(own))


def in_order(own: Iterable[T]) -> Iterator[T]:
    """In process 0: the results of tasks done in turns, in the order of the tasks.

    own: those of this process. All others `send` theirs meanwhile, and wait with the next one until
        it is taken, so that no process holds more than one. A result must not be None.
    """
    streams = [iter(own), *(_received(source) for source in range(1, world_size()))]
    for stream in itertools.cycle(streams):
        result = next(stream, None)
        if result is None:
            break
        yield result
    for stream in streams:
        assert next(stream, None) is None, "a process did more than its turns"


def send(own: Iterable[T]) -> None:
    """In the other processes: do the tasks and send their results to process 0, see `in_order`."""
    for result in itertools.chain(own, [None]):
        distributed.send_object_list([result], dst=0, device=CPU)


def _received(source: int) -> Iterator[Any]:
    while True:
        box: list[Any] = [None]
        distributed.recv_object_list(box, src=source, device=CPU)
        if box[0] is None:
            return
        yield box[0]


def from_main(value: T) -> T:
    """The value that process 0 gave, in every process."""
    box = [value]
    if world_size() > 1:
        distributed.broadcast_object_list(box, src=0, device=CPU)
    return box[0]


# --- one batch over all processes ---


def gather_rows(rows: Tensor) -> Tensor:
    """The rows [B, ...] of all processes, as many in each, in the order of the processes: [P · B, ...].

    The gradient is right where every process computes the same from the result: each keeps what
    belongs to its own rows, and nothing is added up.
    """
    gathered: Tensor = _GatherRows.apply(rows)
    return gathered


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.rows = len(rows)
        whole = rows.new_empty(world_size() * len(rows), *rows.shape[1:])
        distributed.all_gather(list(whole.chunk(world_size())), rows.contiguous())
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient[rank() * ctx.rows : (rank() + 1) * ctx.rows]


def widest(ranges: Tensor) -> Tensor:
    """The ranges [N, 2] that hold those of all processes."""
    if world_size() > 1:
        signs = ranges.new_tensor([1, -1])
        ranges = ranges * signs
        distributed.all_reduce(ranges, distributed.ReduceOp.MIN)
        ranges = ranges * signs
    return ranges


def share_gradients(own: Iterable[Tensor], common: Iterable[Tensor] = ()) -> None:
    """Make the gradients of all processes those of the whole batch, in place.

    own: parameters whose gradient here is that of this process's rows: added up.
    common: parameters whose gradient every process has in full: averaged, so that rounding cannot
        lead the processes apart.

    One exchange after the backward pass, in place of `DistributedDataParallel`: that would see one
    of the model's two ways forward only, and wrap what is saved; and its overlap with the backward
    pass gains little beside an attack, which has no gradients to exchange.
    """
    if world_size() == 1:
        return
    gradients = [p.grad for p in own if p.grad is not None]
    averaged = [p.grad for p in common if p.grad is not None]
    for gradient in averaged:
        gradient /= world_size()
    kinds: dict[torch.dtype, list[Tensor]] = {}
    for gradient in gradients + averaged:
        kinds.setdefault(gradient.dtype, []).append(gradient)
    for members in kinds.values():
        flat = torch.cat([gradient.flatten() for gradient in members])
        distributed.all_reduce(flat)
        for gradient, part in zip(members, flat.split([g.numel() for g in members]), strict=True):
            gradient.copy_(part.view(gradient.shape))
