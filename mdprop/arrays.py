"""What the measures take: arrays, tensors or lists, checked once and turned into numpy arrays.

Tensors are known by their `detach`: importing torch takes longer than most measurements.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Union

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from torch import Tensor

Array = Union[ArrayLike, "Tensor"]


def as_embeddings(embeddings: Array, name: str = "embeddings") -> NDArray[np.float32]:
    """[N, D] float32, contiguous; `ValueError` when it is empty, of another rank or not finite."""
    if hasattr(embeddings, "detach"):
        embeddings = embeddings.detach().cpu().float().numpy()
    array = np.ascontiguousarray(embeddings, dtype=np.float32)
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{name} must be [N, D] with at least one row, not {list(array.shape)}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} hold NaN or infinite values")
    return array


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
