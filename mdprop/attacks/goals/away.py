"""Away from where an image is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Generator, Tensor


@dataclass(frozen=True)
class Away:
    """Make the distance to the image's own clean embedding large; at it, there is no gradient."""

    name: str
    label: str
    many: bool = False
    needs_start: bool = True

    def aims(self, labels: Tensor, rows: Tensor, count: int, generator: Generator) -> Tensor:
        return rows[None]

    def objective(self, embeddings: Tensor, aims: Tensor) -> Tensor:
        return -(embeddings - aims).norm(dim=-1).mean(0)

    def measure(
        self, attacked: NDArray[np.float32], clean: NDArray[np.float32], aims: NDArray[np.float32]
    ) -> dict[str, NDArray[np.float32]]:
        """Nothing: the distance moved is measured for every goal."""
        return {}


UNTARGETED = Away("untargeted", "untargeted")
