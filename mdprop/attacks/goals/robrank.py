"""RobRank's goals over distances: targeted mismatch, embedding shift and the two kinds of misranking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mdprop.attacks.goals.away import Away
from mdprop.attacks.goals.goal import Gallery
from mdprop.attacks.goals.nearness import distances, draw, first_of_another_class, is_row, largest_class
from mdprop.attacks.goals.protocols import Published
from mdprop.attacks.goals.towards import NearestOther

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Generator, Tensor

NUDGE = 1e-6
"""What torch's `pairwise_distance` adds to each dimension of a difference."""


@dataclass(frozen=True, kw_only=True)
class Mismatch(Published):
    """Make 1 − cos(q, e) to one drawn image e small (TMA; Tolias et al., 2019).

    Here e is another image; RobRank may draw the attacked image itself.
    """

    def aims(
        self, labels: Tensor, rows: Tensor, count: int, generator: Generator, ranking: Tensor | None = None
    ) -> Tensor:
        return draw(len(labels), rows, generator, itself=self.published)

    def objective(self, embeddings: Tensor, aims: Tensor, gallery: Gallery[Tensor] | None = None) -> Tensor:
        import torch

        return 1 - torch.cosine_similarity(embeddings, aims[0], dim=-1)

    def measure(
        self,
        attacked: NDArray[np.float32],
        clean: NDArray[np.float32],
        aims: NDArray[np.float32],
        gallery: Gallery[NDArray[Any]] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """target_cosine: cos(q, e) that was reached; 1: it arrived."""
        import numpy as np

        lengths = np.linalg.norm(attacked, axis=1) * np.linalg.norm(aims[0], axis=1)
        product = (attacked * aims[0]).sum(1)
        return {"target_cosine": product / np.maximum(lengths, np.finfo(np.float32).tiny)}


@dataclass(frozen=True, kw_only=True)
class Shift(Away, Published):
    """Away from the image's own clean embedding (ES): `untargeted` by RobRank's name.

    RobRank starts at the clean image and shifts every difference by a millionth in each dimension, so
    that it has a direction there (in its first step by nine tenths of that); we start beside it.
    """

    def objective(self, embeddings: Tensor, aims: Tensor, gallery: Gallery[Tensor] | None = None) -> Tensor:
        return super().objective(embeddings + NUDGE if self.published else embeddings, aims)

    def measure(
        self,
        attacked: NDArray[np.float32],
        clean: NDArray[np.float32],
        aims: NDArray[np.float32],
        gallery: Gallery[NDArray[Any]] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """shift: the distance to the clean embedding, 0 to 2."""
        import numpy as np

        return {"shift": np.linalg.norm(attacked - clean, axis=1)}


@dataclass(frozen=True, kw_only=True)
class Misrank(Published):
    """Bring all images of other classes before the first of the query's own (LTM; Wang et al., 2020).

    [max of d(q, n) over the other classes − min of d(q, p) over the query's own class]+, with d Euclidean.
    Here p is never the query's own clean image; an image that is alone in its class has an objective
    of 0. RobRank's mask for it has no effect: p is nearly always that image.
    """

    needs_gallery: bool = True

    def aims(
        self, labels: Tensor, rows: Tensor, count: int, generator: Generator, ranking: Tensor | None = None
    ) -> Tensor:
        return rows[None][:0]

    def objective(self, embeddings: Tensor, aims: Tensor, gallery: Gallery[Tensor] | None = None) -> Tensor:
        gallery = self._given(gallery)
        other = gallery.query_labels[:, None] != gallery.labels
        apart = distances(embeddings, gallery.embeddings)
        far = apart.masked_fill(~other, float("-inf")).amax(1)
        no_mate = other if self.published else other | is_row(gallery.rows, len(gallery.labels))
        near = apart.masked_fill(no_mate, float("inf")).amin(1)
        return (far - near).clamp(min=0)

    def measure(
        self,
        attacked: NDArray[np.float32],
        clean: NDArray[np.float32],
        aims: NDArray[np.float32],
        gallery: Gallery[NDArray[Any]] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Nothing: Recall@1 says how far it got."""
        return {}


@dataclass(frozen=True, kw_only=True)
class GreedyMisrank(NearestOther, Published):
    """Towards the nearest image of another class (GTM): `nearest_other` by RobRank's name.

    RobRank takes the class of the nearest neighbour for the query's, and takes the place that the image has
    among those of other classes, in the order of the rows, for its row.
    """

    def depth(self, labels: Tensor) -> int:
        return min(largest_class(labels) + self.published, len(labels) - 1)

    def aims(
        self, labels: Tensor, rows: Tensor, count: int, generator: Generator, ranking: Tensor | None = None
    ) -> Tensor:
        if not self.published:
            return super().aims(labels, rows, count, generator, ranking)
        ranking = self._ranked(ranking)
        classes = labels[ranking[:, 0]]
        found = first_of_another_class(ranking, labels, classes)
        return (found - _mates_before(labels, found, classes))[None]


def _mates_before(labels: Tensor, rows: Tensor, classes: Tensor) -> Tensor:
    """How many rows before each of `rows` [Q] are of a class [Q]: labels [N] -> [Q]."""
    import torch

    count = len(labels)
    places = (labels * count + torch.arange(count, device=labels.device)).sort().values
    first, last = (
        torch.searchsorted(places, classes * count + end) for end in (torch.zeros_like(rows), rows)
    )
    return last - first


TMA = Mismatch(name="tma", label="targeted mismatch")
ES = Shift(name="es", label="embedding shift")
LTM = Misrank(name="ltm", label="misrank all")
GTM = GreedyMisrank(name="gtm", label="greedy misrank")
