"""Towards the embeddings of other images (section 3.2 of the paper)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mdprop.attacks.goals.goal import BaseGoal, Gallery, Goal
from mdprop.attacks.goals.nearness import first_of_another_class, largest_class

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Generator, Tensor

    from mdprop.attacks.targets import TargetKind


@dataclass(frozen=True, kw_only=True)
class _Approach(BaseGoal):
    """Make the mean distance to T targets small.

    The authors minimise the square of the mean over targets and images of a batch, whose gradient has
    the same direction for each image.
    """

    def objective(self, embeddings: Tensor, aims: Tensor, gallery: Gallery[Tensor] | None = None) -> Tensor:
        return (embeddings - aims).norm(dim=-1).mean(0)

    def measure(
        self,
        attacked: NDArray[np.float32],
        clean: NDArray[np.float32],
        aims: NDArray[np.float32],
        gallery: Gallery[NDArray[Any]] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """approach: the share of the mean distance to the targets that was covered; 1: it arrived."""
        import numpy as np

        before, after = (np.linalg.norm(aims - images, axis=-1).mean(0) for images in (clean, attacked))
        return {"approach": 1 - after / np.maximum(before, np.finfo(np.float32).tiny)}


@dataclass(frozen=True, kw_only=True)
class Towards(_Approach):
    """Towards images that are drawn; `kind`: see `target_rows`."""

    kind: TargetKind

    def aims(
        self, labels: Tensor, rows: Tensor, count: int, generator: Generator, ranking: Tensor | None = None
    ) -> Tensor:
        from mdprop.attacks.targets import target_rows

        return target_rows(labels, rows, count if self.many else 1, self.kind, generator)


@dataclass(frozen=True, kw_only=True)
class NearestOther(_Approach):
    """Towards the nearest image of another class: the hardest target to keep away from."""

    needs_ranking: bool = True

    def depth(self, labels: Tensor) -> int:
        return largest_class(labels)

    def aims(
        self, labels: Tensor, rows: Tensor, count: int, generator: Generator, ranking: Tensor | None = None
    ) -> Tensor:
        return first_of_another_class(self._ranked(ranking), labels, labels[rows])[None]


SINGLE_TARGET = Towards(name="single_target", label="single-targeted", kind="other_class")
MULTI_TARGET = Towards(name="multi_target", label="multi-targeted", kind="other_class", many=True)
UNADVERSARIAL = Towards(name="unadversarial", label="unadversarial", kind="same_class", harms=False)
NEAREST_OTHER = NearestOther(name="nearest_other", label="nearest other class")


def towards_any(goal: Goal) -> Goal:
    """The goal with the authors' rule in place of targets of other classes: any image, also its own class."""
    return replace(goal, kind="any") if isinstance(goal, Towards) and goal.kind == "other_class" else goal
