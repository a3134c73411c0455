"""What the processes of one stage tell each other; a process that is alone has nothing to tell.

`mdprop.parallel.launch` starts them and makes the process group that is used here.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

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


# --- batch norm ---


def synchronized() -> AbstractContextManager[object]:
    """Batch norms in train mode use the statistics of all processes' rows, as many in each.

    For every layer that calls `torch.nn.functional.batch_norm`, in branches or not, on any device
    (`nn.SyncBatchNorm` refuses CPU tensors, and has to be put in the place of other layers).
    """
    return _Synchronized() if world_size() > 1 else nullcontext()


class _Synchronized(TorchFunctionMode):
    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is F.batch_norm:
            func = _batch_norm
        return func(*args, **(kwargs or {}))


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    y, mean, var = _NormalizeTogether.apply(x, weight, bias, eps)
    if running_mean is not None and running_var is not None:
        count = world_size() * x.numel() // x.shape[1]
        running_mean.lerp_(mean.to(running_mean), momentum)
        running_var.lerp_(var.to(running_var) * count / (count - 1), momentum)
    normalized: Tensor = y
    return normalized


class _NormalizeTogether(torch.autograd.Function):
    """x [B, C, ...] -> (normalised, mean [C], biased variance [C] over all processes)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        statistics = torch.stack(torch.var_mean(_wide(x), _all_but_channels(x), correction=0))
        variances, means = gather_rows(statistics[None]).unbind(1)
        mean = means.mean(0)
        var = (variances + (means - mean).square()).mean(0)
        ctx.save_for_backward(x, weight, mean, (var + eps).rsqrt())
        ctx.mark_non_differentiable(mean, var)
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps), mean, var

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        x, weight, mean, scale = ctx.saved_tensors
        dims, shape = _all_but_channels(x), (1, -1, *(1,) * (x.ndim - 2))
        normalized = (_wide(x) - mean.view(shape)) * scale.view(shape)
        wide = _wide(gradient)
        own = torch.stack([wide.sum(dims), (wide * normalized).sum(dims)])
        whole = own.clone()
        distributed.all_reduce(whole)
        of_mean, of_scale = (whole / (world_size() * x.numel() // x.shape[1])).view(2, *shape).unbind(0)
        if weight is not None:
            scale = scale * weight
        moved = (wide - of_mean - normalized * of_scale) * scale.view(shape)
        of_bias, of_weight = own if weight is not None else (None, None)
        return moved.to(x.dtype), of_weight, of_bias, None


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _all_but_channels(x: Tensor) -> list[int]:
    return [dim for dim in range(x.ndim) if dim != 1]
