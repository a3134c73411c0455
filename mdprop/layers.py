"""Multi batch norm: one batch norm per input distribution, for any network that has batch norm."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mdprop.methods import CLEAN

Routes = str | Mapping[str, int]


class _MultiBatchNorm(nn.Module):
    """Batch-norm layers of one width; `route` says which rows of the batch go through which."""

    plain: type[_BatchNorm] = nn.BatchNorm2d

    def __init__(
        self,
        num_features: int,
        branches: Sequence[str] = (CLEAN, "single_target", "multi_target"),
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
    ) -> None:
        super().__init__()
        self._set_branches(
            branches,
            lambda: self.plain(num_features, eps, momentum, affine, track_running_stats),
        )

    @classmethod
    def from_batchnorm(cls, norm: _BatchNorm, branches: Sequence[str]) -> _MultiBatchNorm:
        """A layer whose branches are full copies of `norm`: parameters, statistics and mode.

        The authors' code copies the weight and the bias only, so that the first attacks, made in
        eval mode, see a mean of 0 and a variance of 1.
        """
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        layer._set_branches(branches, lambda: copy.deepcopy(norm))
        layer.training = norm.training
        return layer

    def _set_branches(self, names: Sequence[str], make: Callable[[], nn.Module]) -> None:
        if not names or len(set(names)) != len(names):
            raise ValueError(f"branches must be one or more different names, not {list(names)}")
        self.branches = nn.ModuleDict({name: make() for name in names})
        self.default = CLEAN if CLEAN in names else names[0]
        self.routes: Routes = self.default

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.routes, str):
            return self.branches[self.routes](x)
        if sum(self.routes.values()) != len(x):
            raise ValueError(f"routes {dict(self.routes)} do not add up to the batch of {len(x)}")
        routes = [(name, size) for name, size in self.routes.items() if size]
        if len(routes) == 1:
            return self.branches[routes[0][0]](x)
        norms = [self.branches[name] for name, _ in routes]
        sizes = [size for _, size in routes]
        if all(_is_affine_map(norm) for norm in norms):
            return _affine_maps(x, norms, sizes)
        return torch.cat([norm(part) for norm, part in zip(norms, torch.split(x, sizes), strict=True)])


def _is_affine_map(norm: nn.Module) -> bool:
    """Whether a branch is a plain batch norm that uses its running statistics."""
    plain = type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    return plain and not norm.training and norm.running_var is not None


def _affine_maps(x: Tensor, norms: Sequence[nn.Module], sizes: Sequence[int]) -> Tensor:
    """Consecutive slices of x [B, C, ...] through batch norms in eval mode, in one pass over memory."""
    scales, shifts = [], []
    for norm in norms:
        assert isinstance(norm, _BatchNorm)
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


class MultiBatchNorm1d(_MultiBatchNorm):
    """`nn.BatchNorm1d` with branches, for inputs [B, C] or [B, C, L]."""

    plain = nn.BatchNorm1d


class MultiBatchNorm2d(_MultiBatchNorm):
    """`nn.BatchNorm2d` with branches, for inputs [B, C, H, W] (section 3.1 of the paper).

    branches: `nn.ModuleDict` of plain `nn.BatchNorm2d` by name.
    Without `route`, everything goes through "clean" (the first branch where there is none of that name).
    Raises `ValueError` when the routed rows do not add up to the batch.
    """

    plain = nn.BatchNorm2d


class MultiBatchNorm3d(_MultiBatchNorm):
    """`nn.BatchNorm3d` with branches, for inputs [B, C, D, H, W]."""

    plain = nn.BatchNorm3d


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

    Its state dict has the plain keys, so it loads into the unconverted network. A module without
    branches is copied as it is for "clean". Raises `ValueError` for a branch that is not there.
    """
    _check_branches(multi_batchnorms(module), [branch])

    def pick(layer: nn.Module) -> nn.Module | None:
        return layer.branches[branch] if isinstance(layer, _MultiBatchNorm) else None

    return _replace(copy.deepcopy(module), pick)


@contextmanager
def route(module: nn.Module, routes: Routes) -> Iterator[None]:
    """Send slices of the batch through batch-norm branches, in every multi batch norm of `module`.

    routes: the name of one branch for the whole batch, or {branch: rows}, contiguous and in this
    order: {"clean": 64, "single_target": 32, "multi_target": 32}.

    Nests; the routes of before come back on exit and on error. Raises `ValueError` for a branch
    that is not there.
    """
    layers = multi_batchnorms(module)
    _check_branches(layers, [routes] if isinstance(routes, str) else list(routes))
    before = [layer.routes for layer in layers]
    for layer in layers:
        layer.routes = routes
    try:
        yield
    finally:
        for layer, old in zip(layers, before, strict=True):
            layer.routes = old


def reset_statistics(module: nn.Module, *, but: str = CLEAN) -> None:
    """Forget the running statistics of all branches but one, as the authors' code starts them."""
    for layer in multi_batchnorms(module):
        for name, norm in layer.branches.items():
            if name != but and isinstance(norm, _BatchNorm):
                norm.reset_running_stats()


def multi_batchnorms(module: nn.Module) -> list[_MultiBatchNorm]:
    """Every multi batch norm in `module`."""
    return [m for m in module.modules() if isinstance(m, _MultiBatchNorm)]


def _check_branches(layers: list[_MultiBatchNorm], names: list[str]) -> None:
    known = list(layers[0].branches) if layers else [CLEAN]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"no batch-norm branch '{unknown[0]}'; there are: {', '.join(known)}")


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
