"""Training methods: which slices make a batch, in which share, through which batch-norm branch.

A method is data. The known ones are `METHODS`; `recipes` in params.yaml holds others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, field_validator, model_validator

from mdprop.attacks.goals import GOALS, get_goal
from mdprop.branches import ALL, CLEAN
from mdprop.errors import ParameterError
from mdprop.settings import Name, Radius, Refused, Section, Targets, fraction, number

_SHARE = (Fraction(1, 1000), Fraction(1))


def _share(value: Any) -> Fraction:
    share = value if isinstance(value, Fraction) else fraction(value)
    if share is None or not _SHARE[0] <= share <= _SHARE[1]:
        raise ValueError("a share from 0.001 to 1, such as 1/2 or 0.5, is needed")
    return share


class Slice(Section):
    """One part of a training batch.

    goal: a name of `GOALS`; None: clean images.
    share: its size, as a share of the clean batch.
    branch: the batch-norm branch that it goes through; the goal's name where it is left out.
    name: unique in its method; where it is left out, the branch, or the goal in the clean branch.
    epsilon, targets: where they differ from those of `attack`.
    through: the branch through which its examples are made; `branch` where it is left out.
    pull: the weight in the loss of its mean ‖f(x̃) − f(x)‖², f(x) the clean embedding of its image, fixed.
    """

    goal: str | None
    share: Annotated[Fraction, BeforeValidator(_share), PlainSerializer(str)] = Fraction(1)
    branch: Name
    name: Name
    epsilon: Radius | None = None
    targets: Targets | None = None
    through: Name | None = None
    pull: Annotated[float, number(0, 1000)] = 0.0

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("goal"), str):
            branch = values.get("branch", values["goal"])
            name = values["goal"] if branch == CLEAN else branch
            return {"branch": branch, "name": name, **values}
        return values

    @field_validator("goal")
    @classmethod
    def _known(cls, goal: str | None) -> str | None:
        if goal is None:
            return None
        if goal not in GOALS:
            raise ValueError(f"unknown goal; known: {', '.join(GOALS)} (clean images are always there)")
        if GOALS[goal].needs_gallery:
            raise ValueError("compares with a whole gallery, which a batch has not; use it in adversary.sets")
        return goal

    @field_validator("branch")
    @classmethod
    def _free(cls, branch: str) -> str:
        if branch == ALL:
            raise ValueError("stands for every branch in adversary.sets; give this one another name")
        return branch

    @property
    def attacked_branch(self) -> str:
        """The branch through which its examples are made."""
        return self.through or self.branch

    def problems(self) -> Iterator[Refused]:
        if self.targets is not None and self.goal is not None and not get_goal(self.goal).many:
            yield Refused("targets", f"goal {self.goal} looks at one image; leave it out")


@dataclass(frozen=True)
class Method:
    """A training method: the slices of one batch, the clean one first; slices of a branch side by side.

    Raises `ParameterError` for slices of the same name, for branches that do not lie side by side, and for
    examples through a branch that the method has not.
    """

    name: str
    slices: tuple[Slice, ...]

    def __post_init__(self) -> None:
        names = [part.name for part in self.slices]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ParameterError(
                f"method '{self.name}' has two slices named '{twice}': give each its own name or branch"
            )
        if self.slices[0].goal is not None:
            raise ParameterError(f"method '{self.name}' must begin with its clean slice")
        order = [self.branches.index(part.branch) for part in self.slices]
        if order != sorted(order):
            raise ParameterError(f"method '{self.name}': slices of one branch must follow each other")
        for part in self.slices:
            if part.attacked_branch not in self.branches:
                raise ParameterError(
                    f"method '{self.name}': slice '{part.name}' is made through '{part.through}', none "
                    f"of its branches; choose from {', '.join(self.branches)}, or leave `through` out"
                )

    @classmethod
    def of(cls, name: str, adversarial: Sequence[Slice]) -> Method:
        """Clean images and the adversarial slices, which are put in the order of their branches."""
        clean = Slice(goal=None, branch=CLEAN, name=CLEAN)
        branches = list(dict.fromkeys((CLEAN, *(part.branch for part in adversarial))))
        return cls(name, (clean, *sorted(adversarial, key=lambda part: branches.index(part.branch))))

    @property
    def branches(self) -> tuple[str, ...]:
        """The batch-norm branches that the network needs, in the order of their first use."""
        return tuple(dict.fromkeys(part.branch for part in self.slices))

    @property
    def adversarial(self) -> tuple[Slice, ...]:
        return tuple(part for part in self.slices if part.goal is not None)

    @property
    def family(self) -> str:
        """The list under `methods` in params.yaml (and the DVC stage) that the method belongs to."""
        if any(get_goal(part.goal).many for part in self.slices if part.goal is not None):
            return "multi_target"
        return "single_target" if self.adversarial else "clean"

    def sizes(self, batch_size: int) -> list[int]:
        """The rows of each slice for a clean batch of `batch_size` images.

        >>> METHODS["mdprop"].sizes(64)
        [64, 32, 32]
        """
        ends = [Fraction(0)]
        for part in self.adversarial:
            ends.append(ends[-1] + part.share)
        return [batch_size, *(round(b * batch_size) - round(a * batch_size) for a, b in pairwise(ends))]

    def members(self, batch_size: int) -> list[list[int]]:
        """Which clean images each adversarial slice is made from.

        The slices follow each other through the batch, so shares that add up to 1 attack each
        image once (section 3 of the paper: the first half single-targeted, the second half
        multi-targeted).
        """
        members, start = [], 0
        for size in self.sizes(batch_size)[1:]:
            members.append([row % batch_size for row in range(start, start + size)])
            start += size
        return members


def _known(name: str, *slices: dict[str, Any]) -> Method:
    return Method.of(name, [Slice.model_validate(part) for part in slices])


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        _known("standard"),
        _known("at", {"goal": "single_target", "branch": CLEAN}),
        _known("advprop", {"goal": "single_target"}),
        _known(
            "mdprop",
            {"goal": "single_target", "share": "1/2"},
            {"goal": "multi_target", "share": "1/2"},
        ),
        _known(
            "mdprop_unadv",
            {"goal": "single_target", "share": "1/3"},
            {"goal": "multi_target", "share": "1/3"},
            {"goal": "unadversarial", "share": "1/3"},
        ),
        # Ours: towards the nearest image of another class, see docs/method.md.
        _known("at_near", {"goal": "nearest_other", "branch": CLEAN}),
        _known(
            "mdprop_near",  # its branches are those of mdprop, so that one list asks both
            {"goal": "single_target", "share": "1/2"},
            {"goal": "nearest_other", "share": "1/2", "branch": "multi_target"},
        ),
    )
}


def get_method(name: str) -> Method:
    """The known method of that name; `ParameterError` names them all."""
    if name not in METHODS:
        raise ParameterError(f"unknown method '{name}'; known: {', '.join(METHODS)}")
    return METHODS[name]
