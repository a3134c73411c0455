"""What the measures take: arrays, tensors or lists, checked once and turned into numpy arrays of one scale.

Tensors are known by their `detach`: importing torch takes longer than most measurements.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from torch import Tensor

Array = Union[ArrayLike, "Tensor"]
Floats = NDArray[np.float32] | NDArray[np.float64]

_USUAL = 20
"""Powers of two around 1 within which the largest magnitude is left as it is."""


def as_embeddings(embeddings: Array, name: str = "embeddings") -> Floats:
    """[N, D], contiguous: float32, or float64 where float32 could not hold the type that is given.

    Raises `ValueError` when it is empty, of another rank, no real numbers, or not finite in float64.
    """
    if hasattr(embeddings, "detach"):
        tensor = embeddings.detach().cpu()
        embeddings = (
            tensor.float() if tensor.is_floating_point() and tensor.itemsize < 8 else tensor
        ).numpy()
    array = np.asarray(embeddings)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} must be real numbers, not {array.dtype}")
    kept = np.float32 if np.can_cast(array.dtype, np.float32) else np.float64
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, dtype=kept)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name} must be [N, D] with at least one row, not {list(array.shape)}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} hold NaN or infinite values")
    return array


def in_range(*matrices: Floats) -> tuple[Floats, ...]:
    """The same matrices, of which sums of squares neither overflow nor vanish, in float32 too.

    Where their largest magnitude is beyond 2^20 or below 2^-20, they are brought to it together, in
    float64: a power of two changes no digit, and no measure depends on the scale. Else nothing is copied.
    """
    largest = max(float(max(matrix.max(), -matrix.min())) for matrix in matrices)
    exponent = int(np.frexp(largest)[1])
    if abs(exponent) <= _USUAL:
        return matrices
    return tuple(np.ldexp(matrix.astype(np.float64), _USUAL - exponent) for matrix in matrices)


def as_labels(labels: Array, count: int | None = None, name: str = "labels") -> NDArray[np.int64]:
    """[N] int64; `ValueError` when it is empty, of another rank, no integers, or not `count` long."""
    array = as_vector(labels, count, name)
    if array.dtype.kind not in "iub":
        raise ValueError(f"{name} must be integers, not {array.dtype}")
    return array.astype(np.int64, copy=False)


def as_vector(values: Array, count: int | None, name: str) -> NDArray[Any]:
    """[N] of any type; `ValueError` when it is empty, of another rank or not `count` long."""
    array = values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"{name} must be [N] with at least one entry, not {list(array.shape)}")
    if count is not None and len(array) != count:
        raise ValueError(f"{name} has {len(array)} entries for {count} rows")
    return array
