"""Multi batch norm: one batch norm per input distribution, and which rows go through which."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mdprop.branches import CLEAN
from mdprop.layers.slices import normalize_slices

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
        names, sizes = zip(*routes, strict=True)
        return normalize_slices(x, [self.branches[name] for name in names], sizes)


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


@contextmanager
def route(module: nn.Module, routes: Routes) -> Iterator[None]:
    """Send slices of the batch through batch-norm branches, in every multi batch norm of `module`.

    routes: the name of one branch for the whole batch, or {branch: rows}, contiguous and in this
    order: {"clean": 64, "single_target": 32, "multi_target": 32}.

    Nests; the routes of before come back on exit and on error. Raises `ValueError` for a branch
    that is not there.
    """
    layers = multi_batchnorms(module)
    check_branches(layers, [routes] if isinstance(routes, str) else list(routes))
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


def check_branches(layers: list[_MultiBatchNorm], names: Sequence[str]) -> None:
    """Raises `ValueError` for a name that none of the branches has; it says which there are."""
    known = list(layers[0].branches) if layers else [CLEAN]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(f"no batch-norm branch '{unknown[0]}'; there are: {', '.join(known)}")
