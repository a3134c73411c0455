"""From plain batch norm to branches, and back."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mdprop.branches import CLEAN, parse_branch
from mdprop.layers.multi import (
    MultiBatchNorm1d,
    MultiBatchNorm2d,
    MultiBatchNorm3d,
    _MultiBatchNorm,
    check_branches,
    multi_batchnorms,
)


def convert_batchnorm(module: nn.Module, branches: Sequence[str]) -> nn.Module:
    """Give every batch norm below `module` one copy of itself per branch.

    Works in place and returns `module` (the new layer when `module` itself is a batch norm). A
    layer that appears in two places stays shared. Subclasses of `nn.BatchNorm*d`, such as timm's,
    keep their class in each branch.

    Raises `ValueError` when there is nothing to convert or when branches are there already.
    """
    if multi_batchnorms(module):
        raise ValueError("the module has batch-norm branches already")
    norms = sum(isinstance(m, _BatchNorm) for m in module.modules())
    if not norms:
        raise ValueError("the module has no batch norm to convert")

    def convert(norm: nn.Module) -> nn.Module | None:
        for cls in (MultiBatchNorm1d, MultiBatchNorm2d, MultiBatchNorm3d):
            if isinstance(norm, cls.plain):
                return cls.from_batchnorm(norm, branches)
        if isinstance(norm, _BatchNorm):  # SyncBatchNorm takes inputs of any rank
            return MultiBatchNorm2d.from_batchnorm(norm, branches)
        return None

    return _replace(module, convert)


def extract_branch(module: nn.Module, branch: str = CLEAN) -> nn.Module:
    """A copy of `module` with plain batch norm: the network as built, with one branch's layers.

    branch: a name, or a mixture of two branches, as `mdprop.branches.parse_branch` reads it:
        "clean+25%multi_target" has weights, biases, running means and variances that are 75 % those
        of clean and 25 % those of multi_target. What is not of floating point is the first's.

    Its state dict has the plain keys, so it loads into the unconverted network. A module without
    branches is copied as it is for "clean". Raises `ValueError` for a branch that is not there.
    """
    wanted = parse_branch(branch)
    check_branches(multi_batchnorms(module), wanted.names)

    def pick(layer: nn.Module) -> nn.Module | None:
        if not isinstance(layer, _MultiBatchNorm):
            return None
        norm = layer.branches[wanted.first]
        if wanted.second is not None:
            _move_towards(norm, layer.branches[wanted.second], wanted.percent / 100)
        return norm

    return _replace(copy.deepcopy(module), pick)


@torch.no_grad()
def _move_towards(norm: nn.Module, other: nn.Module, weight: float) -> None:
    """Interpolate the parameters and statistics of `norm` in place; `weight` is that of `other`."""
    state = other.state_dict()
    for name, value in norm.state_dict().items():
        if value.is_floating_point():
            value.lerp_(state[name], weight)


def _replace(module: nn.Module, make: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """Replace each descendant for which `make` returns a module; shared ones stay shared."""
    made: dict[int, nn.Module] = {}

    def visit(child: nn.Module) -> nn.Module:
        if id(child) not in made:
            new = make(child)
            made[id(child)] = child if new is None else new
            if new is None:
                for name, grandchild in list(child._modules.items()):
                    if grandchild is not None:
                        child._modules[name] = visit(grandchild)
        return made[id(child)]

    return visit(module)
