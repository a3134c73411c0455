"""The shape of a goal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Generator, Tensor


class Goal(Protocol):
    """What an attack wants, the same in training and in tests.

    name: as in params.yaml. label: as in tables.
    many: whether it looks at `Threat.targets` images at once; otherwise at one.
    needs_start: whether it has no gradient at the clean image, so that it must start beside it.
    """

    @property
    def name(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def many(self) -> bool: ...
    @property
    def needs_start(self) -> bool: ...

    def aims(self, labels: Tensor, rows: Tensor, count: int, generator: Generator) -> Tensor:
        """The images that each attacked one looks at: labels [N], rows [Q] of those attacked -> rows [T, Q].

        count: `Threat.targets`. Draws come from the generator alone. A goal that looks at none
        returns [0, Q].
        """

    def objective(self, embeddings: Tensor, aims: Tensor) -> Tensor:
        """What the attack makes small, for each image by itself: [B, D], [T, B, D] -> [B]."""

    def measure(
        self, attacked: NDArray[np.float32], clean: NDArray[np.float32], aims: NDArray[np.float32]
    ) -> dict[str, NDArray[np.float32]]:
        """How far it got, by name, for each image: [Q, D], its clean embedding [Q, D], [T, Q, D] -> [Q]."""
