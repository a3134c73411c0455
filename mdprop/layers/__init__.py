"""Multi batch norm: one batch norm per input distribution, for any network that has batch norm."""

from mdprop.layers.conversion import convert_batchnorm, extract_branch
from mdprop.layers.multi import (
    MultiBatchNorm1d,
    MultiBatchNorm2d,
    MultiBatchNorm3d,
    multi_batchnorms,
    reset_statistics,
    route,
)

__all__ = [
    "MultiBatchNorm1d",
    "MultiBatchNorm2d",
    "MultiBatchNorm3d",
    "convert_batchnorm",
    "extract_branch",
    "multi_batchnorms",
    "reset_statistics",
    "route",
]
