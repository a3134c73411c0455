"""An attack: a goal and the means to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import field_validator, model_validator

from mdprop.attacks.goals import GOALS, Goal, ProtocolName, get_goal, in_protocol
from mdprop.settings import Positive, Radius, Section, Share, Units

if TYPE_CHECKING:
    from torch import Tensor


class Threat(Section):
    """The only record of an attack, in training and in tests.

    goal: a name of `GOALS`.
    norm: of the perturbation: "linf", its largest component; "l2", the Euclidean norm over all pixels
        and channels of an image.
    epsilon: the largest norm, in `units`.
    units: "pixel", in [0, 1], or "normalized", in standard deviations of a channel (linf only).
    steps, step_ratio: how many steps, and their size as a share of epsilon; None: 1 / steps. Optimizers
        other than "pgd" choose sizes of their own.
    restarts: attempts from other random starts, of which each image keeps its best.
    targets: how many images a goal with `many` looks at.
    optimizer: "pgd"; "apgd", which chooses its own steps and keeps the best point; "square", a random
        search that sees no gradient; "noise", the control, of full size without any search.
    protocol: "robrank": the goals of RobRank as in its code, for comparison with its tables.
    start_noise: the radius of the uniform random start, in `units`; None: epsilon.
    """

    goal: str
    epsilon: Radius
    norm: Literal["linf", "l2"] = "linf"
    units: Units = "pixel"
    steps: Positive = 10
    step_ratio: Share | None = None
    restarts: Positive = 1
    targets: Positive = 5
    start_noise: Radius | None = None
    optimizer: Literal["pgd", "apgd", "square", "noise"] = "pgd"
    protocol: ProtocolName = "mdprop"

    @field_validator("goal")
    @classmethod
    def _known(cls, goal: str) -> str:
        if goal not in GOALS:
            raise ValueError(f"unknown goal; known: {', '.join(GOALS)}")
        return goal

    @model_validator(mode="after")
    def _possible(self) -> Threat:
        if self.norm == "l2" and self.units != "pixel":
            raise ValueError("norm l2 is over all channels together: it needs units: pixel")
        if self.optimizer in ("pgd", "apgd") and self.start_noise == 0:
            if self.epsilon > 0 and self.wants.needs_start:
                raise ValueError(f"goal {self.goal} has no gradient at the clean image: set start_noise")
            if self.restarts > 1:
                raise ValueError(f"{self.restarts} restarts without start_noise are all the same: use 1")
        return self

    @property
    def wants(self) -> Goal:
        """The goal itself."""
        return in_protocol(get_goal(self.goal), self.protocol)

    @property
    def start(self) -> float:
        """The radius of the random start, in `units`."""
        return self.epsilon if self.start_noise is None else self.start_noise

    def in_pixels(self, radius: float | Tensor, std: Tensor) -> float | Tensor:
        """A radius in `units` as pixels in [0, 1]: as it is, or times `std` [C, 1, 1]."""
        return radius if self.units == "pixel" else radius * std

    def step_size(self, std: Tensor) -> float | Tensor:
        """Of each step, in pixels."""
        epsilon = self.in_pixels(self.epsilon, std)
        return epsilon / self.steps if self.step_ratio is None else epsilon * self.step_ratio
