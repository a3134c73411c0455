"""Away from where an image is, or from where its class is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mdprop.attacks.goals.goal import BaseGoal, Gallery
from mdprop.attacks.goals.nearness import class_centroids, is_row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Generator, Tensor


@dataclass(frozen=True, kw_only=True)
class Away(BaseGoal):
    """Make the distance to the image's own clean embedding large; at it, there is no gradient."""

    needs_start: bool = True

    def aims(
        self, labels: Tensor, rows: Tensor, count: int, generator: Generator, ranking: Tensor | None = None
    ) -> Tensor:
        return rows[None]

    def objective(self, embeddings: Tensor, aims: Tensor, gallery: Gallery[Tensor] | None = None) -> Tensor:
        return -(embeddings - aims).norm(dim=-1).mean(0)

    def measure(
        self,
        attacked: NDArray[np.float32],
        clean: NDArray[np.float32],
        aims: NDArray[np.float32],
        gallery: Gallery[NDArray[Any]] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Nothing: the distance moved is measured for every goal."""
        return {}


@dataclass(frozen=True, kw_only=True)
class FromCentroid(Away):
    """Make the distance to the mean of the other clean images of the image's class large.

    An image that is alone in its class flees from its own clean embedding. That has no gradient there,
    so all of them start beside it.
    """

    needs_gallery: bool = True

    def objective(self, embeddings: Tensor, aims: Tensor, gallery: Gallery[Tensor] | None = None) -> Tensor:
        gallery = self._given(gallery)
        mates = gallery.query_labels[:, None] == gallery.labels
        mates &= ~is_row(gallery.rows, len(gallery.labels))
        count = mates.sum(1)
        means = mates.to(gallery.embeddings) @ gallery.embeddings / count.clamp(min=1)[:, None]
        return -(embeddings - means.where(count[:, None] > 0, aims[0])).norm(dim=-1)

    def measure(
        self,
        attacked: NDArray[np.float32],
        clean: NDArray[np.float32],
        aims: NDArray[np.float32],
        gallery: Gallery[NDArray[Any]] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """retreat: by how much the distance to the centroid grew."""
        import numpy as np

        centroids = class_centroids(self._given(gallery), clean)
        before, after = (np.linalg.norm(images - centroids, axis=1) for images in (clean, attacked))
        return {"retreat": after - before}


UNTARGETED = Away(name="untargeted", label="untargeted")
FROM_CENTROID = FromCentroid(name="from_centroid", label="away from its class")
