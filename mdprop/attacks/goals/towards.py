"""Towards the embeddings of other images (section 3.2 of the paper)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mdprop.attacks.goals.goal import Goal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Generator, Tensor

    from mdprop.attacks.targets import TargetKind


@dataclass(frozen=True)
class Towards:
    """Make the mean distance to T targets small; `kind`: see `target_rows`.

    The authors minimise the square of the mean over targets and images of a batch, whose gradient has
    the same direction for each image.
    """

    name: str
    label: str
    kind: TargetKind
    many: bool = False
    needs_start: bool = False

    def aims(self, labels: Tensor, rows: Tensor, count: int, generator: Generator) -> Tensor:
        from mdprop.attacks.targets import target_rows

        return target_rows(labels, rows, count if self.many else 1, self.kind, generator)

    def objective(self, embeddings: Tensor, aims: Tensor) -> Tensor:
        return (embeddings - aims).norm(dim=-1).mean(0)

    def measure(
        self, attacked: NDArray[np.float32], clean: NDArray[np.float32], aims: NDArray[np.float32]
    ) -> dict[str, NDArray[np.float32]]:
        """approach: the share of the mean distance to the targets that was covered; 1: it arrived."""
        import numpy as np

        before, after = (np.linalg.norm(aims - images, axis=-1).mean(0) for images in (clean, attacked))
        return {"approach": 1 - after / np.maximum(before, np.finfo(np.float32).tiny)}


SINGLE_TARGET = Towards("single_target", "single-targeted", "other_class")
MULTI_TARGET = Towards("multi_target", "multi-targeted", "other_class", many=True)
UNADVERSARIAL = Towards("unadversarial", "unadversarial", "same_class")


def towards_any(goal: Goal) -> Goal:
    """The goal with the authors' rule in place of targets of other classes: any image, also its own class."""
    return replace(goal, kind="any") if isinstance(goal, Towards) and goal.kind == "other_class" else goal
