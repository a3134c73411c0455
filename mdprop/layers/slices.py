"""Consecutive slices of a batch through batch norms of their own, written into one output.

Called one by one, the norms leave outputs that have to be put together, and so do their gradients:
a pass over memory each time, much of it fresh. Here each norm writes into its part of the whole, by
PyTorch's own kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

_LAYOUTS = (torch.contiguous_format, torch.channels_last, torch.channels_last_3d)
_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_KERNEL = torch.ops.aten.native_batch_norm.out
_GRADIENTS = torch.ops.aten.native_batch_norm_backward.default


def normalize_slices(x: Tensor, norms: Sequence[nn.Module], sizes: Sequence[int]) -> Tensor:
    """Consecutive slices of x [B, C, ...], `sizes` rows each (B in all), through one of `norms` each.

    Gives what calling each norm on its slice gives, running statistics and errors included, in eval
    mode to rounding; a gradient of the gradient is refused. Norms that are not plain ones are called,
    and so are all on other devices than the CPU, for inputs of unusual strides and under `torch.compile`.
    """
    plain = [norm for norm in norms if _is_plain(norm)]
    if len(plain) == len(norms):
        if all(not norm.training and norm.running_var is not None for norm in plain):
            return _affine_maps(x, plain, sizes)
        if x.device.type == "cpu" and _is_dense(x) and not torch.compiler.is_compiling():
            return _normalize_once(x, plain, sizes)
    return _one_by_one(x, norms, sizes)


def _is_plain(norm: nn.Module) -> TypeGuard[_BatchNorm]:
    """Whether calling `norm` does what PyTorch's batch norm does, and nothing else."""
    hooks = norm._forward_pre_hooks, norm._forward_hooks, norm._backward_pre_hooks, norm._backward_hooks
    return type(norm) in _PLAIN and not any(hooks)


def _is_dense(x: Tensor) -> bool:
    """Whether x has one of the layouts that the kernels read and write as they are; others they get wrong."""
    return any(x.is_contiguous(memory_format=layout) for layout in _LAYOUTS)


def _one_by_one(x: Tensor, norms: Sequence[nn.Module], sizes: Sequence[int]) -> Tensor:
    return torch.cat([norm(part) for norm, part in zip(norms, x.split(list(sizes)), strict=True)])


def _affine_maps(x: Tensor, norms: Sequence[_BatchNorm], sizes: Sequence[int]) -> Tensor:
    """Consecutive slices of x [B, C, ...] through batch norms in eval mode, in one pass over memory.

    Where no weight or bias asks for a gradient, x is not kept for the backward pass.
    """
    scales, shifts = [], []
    for norm in norms:
        assert norm.running_mean is not None and norm.running_var is not None
        scale = (norm.running_var + norm.eps).rsqrt()
        scale = scale if norm.weight is None else scale * norm.weight
        shift = -norm.running_mean * scale
        scales.append(scale)
        shifts.append(shift if norm.bias is None else shift + norm.bias)
    shape = (len(x), -1) + (1,) * (x.ndim - 2)
    scale, shift = (
        torch.cat([value.expand(size, -1) for value, size in zip(values, sizes, strict=True)]).view(shape)
        for values in (scales, shifts)
    )
    return torch.addcmul(shift, x, scale).to(x.dtype)


def _normalize_once(x: Tensor, norms: Sequence[_BatchNorm], sizes: Sequence[int]) -> Tensor:
    """Consecutive slices of x [B, C, ...] through batch norms in any mode, without concatenation."""
    norms[0]._check_input_dim(x)
    for norm, size in zip(norms, sizes, strict=True):
        if _by_batch(norm) and size * x[0, 0].numel() == 1:
            shape = torch.Size([size, *x.shape[1:]])
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {shape}")
    ways = [_Way.of(norm) for norm in norms]
    affine = [norm.weight for norm in norms] + [norm.bias for norm in norms]
    return _NormalizeSlices.apply(x, list(sizes), ways, *affine)


def _by_batch(norm: _BatchNorm) -> bool:
    return norm.training or norm.running_mean is None


@dataclass(frozen=True)
class _Way:
    """How one slice is normalised: what the kernels take besides the slice, its weight and its bias."""

    running_mean: Tensor | None
    running_var: Tensor | None
    by_batch: bool
    momentum: float
    eps: float

    @classmethod
    def of(cls, norm: _BatchNorm) -> _Way:
        """That of `norm` for its next batch, which is counted: the rules of `nn.BatchNorm2d.forward`."""
        momentum = norm.momentum or 0.0
        tracks = norm.training and norm.track_running_stats
        if tracks and norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
            if norm.momentum is None:
                momentum = 1.0 / float(norm.num_batches_tracked)
        used = tracks or not norm.training
        running = (norm.running_mean, norm.running_var) if used else (None, None)
        return cls(*running, _by_batch(norm), momentum, norm.eps)

    def forward(
        self, x: Tensor, weight: Tensor | None, bias: Tensor | None, into: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Normalise x [b, C, ...] `into` memory of its shape; returns mean and 1 / deviation, [C]."""
        kind = next((t.dtype for t in (weight, self.running_var) if t is not None), x.dtype)
        mean, scale = x.new_empty(0, dtype=kind), x.new_empty(0, dtype=kind)
        _KERNEL(
            x, weight, bias, self.running_mean, self.running_var, self.by_batch, self.momentum, self.eps,
            out=into, save_mean=mean, save_invstd=scale,
        )  # fmt: skip
        return mean, scale

    def backward(
        self,
        gradient: Tensor,
        x: Tensor,
        weight: Tensor | None,
        statistics: tuple[Tensor, Tensor],
        into: Tensor | None,
        asked: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        """The gradients of weight and bias, where `asked`; that of x goes `into` memory, where given.

        The kernel cannot write the latter there. Making it here of the kernel's sums saved a copy, but
        no time in a step that could be told from chance, and rounded otherwise.
        """
        wanted = [into is not None, *asked]
        if not any(wanted):
            return None, None
        whole, of_weight, of_bias = _GRADIENTS(
            gradient, x, weight, self.running_mean, self.running_var, *statistics,
            self.by_batch, self.eps, wanted,
        )  # fmt: skip
        if into is not None:
            into.copy_(whole)
        return of_weight, of_bias


class _NormalizeSlices(torch.autograd.Function):
    """x [B, C, ...], its slices' sizes and ways, their weights and biases [C] -> normalised [B, C, ...].

    The output is not kept, so that an activation may overwrite it.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, sizes: Sequence[int], ways: Sequence[_Way], *affine: Tensor | None
    ) -> Tensor:
        out = torch.empty_like(x)
        weights, biases = affine[: len(ways)], affine[len(ways) :]
        slices = zip(ways, x.split(sizes), weights, biases, out.split(sizes), strict=True)
        statistics = [way.forward(*given) for way, *given in slices]
        ctx.sizes, ctx.ways = sizes, ways
        ctx.save_for_backward(x, *weights, *(value for pair in statistics for value in pair))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        count = len(ctx.ways)
        weights, means, scales = saved[:count], saved[count::2], saved[count + 1 :: 2]
        asked = ctx.needs_input_grad[3:]
        out = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        slices = zip(
            ctx.ways,
            gradient.split(ctx.sizes),
            x.split(ctx.sizes),
            weights,
            zip(means, scales, strict=True),
            [None] * count if out is None else out.split(ctx.sizes),
            zip(asked[:count], asked[count:], strict=True),
            strict=True,
        )
        of_weights, of_biases = zip(*(way.backward(*given) for way, *given in slices), strict=True)
        return out, None, None, *of_weights, *of_biases
