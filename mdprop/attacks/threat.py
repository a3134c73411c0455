"""An attack: a goal and the means to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, field_validator

from mdprop.attacks.goals import GOALS, Goal, ProtocolName, get_goal, in_protocol
from mdprop.branches import ALL, parse_branch
from mdprop.settings import (
    Norm,
    OptimizerName,
    Radius,
    Refused,
    Restarts,
    Section,
    Share,
    Steps,
    Targets,
    Units,
    too_large,
)

if TYPE_CHECKING:
    from torch import Tensor

RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}/(0|[1-9][0-9]{0,9})$")]
"""A trained model by method and seed, `standard/0`."""


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
    branch: the batch-norm branch, or mixture of two, that is attacked; "all": the mean objective over
        every branch of the network; None: the one that answers (white-box).
    source: the run that is attacked in place of the one that answers (transfer), `standard/0`; what its
        images look at is embedded by that run too, through its clean branch where `branch` is None.
    """

    goal: str
    epsilon: Radius
    norm: Norm = "linf"
    units: Units = "pixel"
    steps: Steps = 10
    step_ratio: Share | None = None
    restarts: Restarts = 1
    targets: Targets = 5
    start_noise: Radius | None = None
    optimizer: OptimizerName = "pgd"
    protocol: ProtocolName = "mdprop"
    branch: str | None = None
    source: RunName | None = None

    @field_validator("goal")
    @classmethod
    def _known(cls, goal: str) -> str:
        if goal not in GOALS:
            raise ValueError(f"unknown goal; known: {', '.join(GOALS)}")
        return goal

    @field_validator("branch")
    @classmethod
    def _a_branch(cls, branch: str | None) -> str | None:
        if branch is not None and branch != ALL:
            parse_branch(branch)
        return branch

    def problems(self) -> Iterator[Refused]:
        yield from too_large("epsilon", self.epsilon, self.units, self.norm)
        yield from too_large("start_noise", self.start_noise, self.units)
        if self.norm == "l2" and self.units != "pixel":
            yield Refused("units", "norm l2 is over all channels together: it needs units: pixel")
        if self.optimizer in ("pgd", "apgd") and self.start_noise == 0:
            if self.epsilon > 0 and self.wants.needs_start:
                reason = f"goal {self.goal} has no gradient at the clean image: more than 0 is needed"
                yield Refused("start_noise", reason)
            if self.restarts > 1:
                yield Refused("restarts", "without start_noise all are the same: 1 is needed")

    @property
    def wants(self) -> Goal:
        """The goal itself."""
        return in_protocol(get_goal(self.goal), self.protocol)

    @property
    def white_box(self) -> bool:
        """Whether it attacks the network and the branch that answer."""
        return self.branch is None and self.source is None

    def seen_from(self, answering: str) -> Threat:
        """The same attack through the eyes of `answering`: white-box where that is the branch attacked."""
        own = self.source is None and self.branch == answering
        return self.model_copy(update={"branch": None}) if own else self

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
