"""Goals over ranks: RobRank's candidate and query attacks, and greedy translocation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mdprop.attacks.goals.goal import Array, Gallery
from mdprop.attacks.goals.nearness import count_closer, distances, draw, is_row
from mdprop.attacks.goals.protocols import Published

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Generator, Tensor

NEAR = 0.01
"""An image is moved down from among this share of the gallery."""

TOP = 4
"""A translocated neighbour is to leave so many places."""


@dataclass(frozen=True, kw_only=True)
class Rank(Published):
    """Bring one image c up or down in the ranking of the gallery X for one query q (Zhou et al., ECCV 2020).

    d(q, ·) is the Euclidean distance, [·]+ = max(0, ·). Up: the mean of [d(q, c) − d(q, x)]+ over x in X;
    down: of [d(q, x) − d(q, c)]+. With perturbs "query" q is attacked and c looked at (QA), with
    "gallery" c is attacked and q looked at (CA). Up, the image looked at is any; down, it is drawn from
    the attacked image's nearest ⌊0.01 N⌋.

    Here it is never the attacked image itself, ⌊0.01 N⌋ is at least 1, and x are the other images: not
    the clean form of the attacked one, nor q or c. RobRank draws from all, cannot draw below 100 images,
    and takes all N for x: the attacked image's clean form counts, and for CA the query itself, which no
    candidate can pass.
    """

    up: bool
    needs_gallery: bool = True

    def depth(self, labels: Tensor) -> int:
        if self.up:
            return 0
        near = int(NEAR * len(labels))
        return near if self.published else max(1, near)

    def aims(
        self, labels: Tensor, rows: Tensor, count: int, generator: Generator, ranking: Tensor | None = None
    ) -> Tensor:
        if not self.published and len(labels) < 3:
            raise ValueError(f"goal {self.name} ranks two images among others: it needs 3, not {len(labels)}")
        if self.up:
            return draw(len(labels), rows, generator, itself=self.published)
        depth = self.depth(labels)
        if not depth:
            raise ValueError(f"goal {self.name} as in RobRank needs 100 images, not {len(labels)}")
        place = draw(depth, rows, generator, itself=True)
        return self._ranked(ranking).gather(1, place.T).T

    def objective(self, embeddings: Tensor, aims: Tensor, gallery: Gallery[Tensor] | None = None) -> Tensor:
        gallery = self._given(gallery)
        query, candidate = self._roles(embeddings, aims[0])
        ahead = (query - candidate).norm(dim=-1)[:, None] - distances(query, gallery.embeddings)
        hinge = (ahead if self.up else -ahead).clamp(min=0)
        for rows in self._left_out(gallery):
            hinge = hinge.masked_fill(is_row(rows, len(gallery.embeddings)), 0)
        return hinge.sum(1) / self._compared(gallery)

    def measure(
        self,
        attacked: NDArray[np.float32],
        clean: NDArray[np.float32],
        aims: NDArray[np.float32],
        gallery: Gallery[NDArray[Any]] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """rank_percent: the share of x that are closer to q than c is, in %; 0: c comes first."""
        gallery = self._given(gallery)
        left_out = self._left_out(gallery)
        query, candidate = self._roles(attacked, aims[0])
        closer = count_closer(query, candidate, gallery.embeddings, left_out)
        return {
            "rank_percent": 100 * closer / (len(gallery.embeddings) - sum(rows >= 0 for rows in left_out))
        }

    def _roles(self, attacked: Array, aim: Array) -> tuple[Array, Array]:
        return (attacked, aim) if self.perturbs == "query" else (aim, attacked)

    def _left_out(self, gallery: Gallery[Array]) -> tuple[Array, ...]:
        aim_rows: Any = gallery.aim_rows
        return () if self.published else (gallery.rows, aim_rows[0])

    def _compared(self, gallery: Gallery[Any]) -> Any:
        """How many images x there are: a number, or one for each attacked image [B]."""
        return len(gallery.embeddings) - sum((rows >= 0) * 1 for rows in self._left_out(gallery))


@dataclass(frozen=True, kw_only=True)
class Translocation(Rank):
    """Bring the query's nearest neighbour down (GTT); mended, the query's own clean image does not count."""

    up: bool = False
    needs_ranking: bool = True

    def depth(self, labels: Tensor) -> int:
        return 1

    def measure(
        self,
        attacked: NDArray[np.float32],
        clean: NDArray[np.float32],
        aims: NDArray[np.float32],
        gallery: Gallery[NDArray[Any]] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """kept: whether the neighbour is still among the nearest four, the query's own image left out."""
        gallery = self._given(gallery)
        closer = count_closer(attacked, aims[0], gallery.embeddings, (gallery.rows, gallery.aim_rows[0]))
        return {"kept": closer < TOP}


CA_PLUS = Rank(name="ca_plus", label="candidate up", perturbs="gallery", up=True)
CA_MINUS = Rank(name="ca_minus", label="candidate down", perturbs="gallery", up=False, needs_ranking=True)
QA_PLUS = Rank(name="qa_plus", label="query up", up=True)
QA_MINUS = Rank(name="qa_minus", label="query down", up=False, needs_ranking=True)
GTT = Translocation(name="gtt", label="greedy translocation")
