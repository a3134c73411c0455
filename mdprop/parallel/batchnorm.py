"""Batch norm over the rows of all processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from mdprop.errors import ModelError
from mdprop.parallel.exchange import gather_rows, world_size


def synchronize_batchnorm(module: nn.Module) -> nn.Module:
    """Have each batch norm in `module` use, in train mode, the rows of all processes, as many in each.

    Works in place and returns `module` (the new layer where `module` is a batch norm itself); a
    process that is alone changes nothing. Every batch norm, in branches or not, gives its place to a
    `SynchronizedBatchNorm` that holds the same parameters, statistics, mode and state-dict keys. A
    layer that appears in two places stays shared.

    Raises `ModelError` for a class of batch norm that does something else than to normalise first.
    """
    if world_size() == 1:
        return module
    replaced: dict[nn.Module, SynchronizedBatchNorm] = {}

    def synchronized(norm: _BatchNorm) -> SynchronizedBatchNorm:
        if norm not in replaced:
            replaced[norm] = SynchronizedBatchNorm.in_place_of(norm)
        return replaced[norm]

    for parent in list(module.modules()):
        for name, child in parent._modules.items():
            if isinstance(child, _BatchNorm):
                parent._modules[name] = synchronized(child)
    return synchronized(module) if isinstance(module, _BatchNorm) else module


class SynchronizedBatchNorm(nn.SyncBatchNorm):
    """`nn.SyncBatchNorm` that takes inputs [B, C, ...] on the CPU too, with equal B in all processes.

    In eval mode it is a plain batch norm of the process's own rows. What timm's layers do after
    they have normalised (their children `drop` and `act`) follows.
    """

    @classmethod
    def in_place_of(cls, norm: _BatchNorm) -> SynchronizedBatchNorm:
        """A layer of the same state as `norm`, which is to be used no more."""
        if isinstance(norm, cls):
            return norm
        plain = type(norm).forward in (_BatchNorm.forward, nn.SyncBatchNorm.forward)
        if not plain and [name for name, _ in norm.named_children()] != ["drop", "act"]:
            raise ModelError(
                f"model.backbone: several processes cannot share batch norms of class {type(norm).__name__}; "
                "choose another backbone, or train with MDPROP_PROCESSES=1"
            )
        layer = cls(norm.num_features, affine=False, track_running_stats=False)
        layer.__dict__ |= norm.__dict__
        return layer

    def forward(self, x: Tensor) -> Tensor:
        own_way = self.training and x.device.type == "cpu" and world_size() > 1
        x = self._on_cpu(x) if own_way else super().forward(x)
        for layer in self.children():
            x = layer(x)
        return x

    def _on_cpu(self, x: Tensor) -> Tensor:
        self._check_input_dim(x)
        normalized: Tensor
        normalized, mean, var = _NormalizeTogether.apply(x, self.weight, self.bias, self.eps)
        if self.track_running_stats:
            assert self.num_batches_tracked is not None
            assert self.running_mean is not None and self.running_var is not None
            self.num_batches_tracked += 1
            momentum = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
            count = _count(x)
            self.running_mean.lerp_(mean.to(self.running_mean), momentum)
            self.running_var.lerp_(var.to(self.running_var) * count / (count - 1), momentum)
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
        of_mean, of_scale = (whole / _count(x)).view(2, *shape).unbind(0)
        if weight is not None:
            scale = scale * weight
        moved = (wide - of_mean - normalized * of_scale) * scale.view(shape)
        of_bias, of_weight = own if weight is not None else (None, None)
        return moved.to(x.dtype), of_weight, of_bias, None


def _count(x: Tensor) -> int:
    """Values of a channel, over all processes."""
    return world_size() * x.numel() // x.shape[1]


def _wide(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _all_but_channels(x: Tensor) -> list[int]:
    return [dim for dim in range(x.ndim) if dim != 1]
