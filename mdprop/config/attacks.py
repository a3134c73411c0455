"""The sections of params.yaml about attacks: those of training, and those that trained models meet."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from mdprop.attacks.goals import ProtocolName, get_goal
from mdprop.attacks.threat import Threat
from mdprop.branches import CLEAN, parse_branch
from mdprop.methods import Name, Slice
from mdprop.runs import CHECKS, GALLERY, SCORE, WORST_CASE
from mdprop.settings import NonNegative, Positive, Radius, Section, Seed, Share, Units


class AttackSettings(Section):
    """How training makes its examples; a rule that is None is the one of `compatibility`.

    shared_forward: targets are embeddings of the noisy start, from the pass that the first step makes
        anyway, instead of clean images. One pass less; without start noise the result is the same.
    """

    targets: Positive
    epsilon: Radius
    steps: Positive
    start_noise: Radius
    compatibility: Literal["mdprop", "authors"]
    units: Units | None
    clip: Literal["valid", "batch"] | None
    target_kind: Literal["other_class", "any"] | None
    batchnorm_start: Literal["copy", "reset"] | None
    shared_forward: bool

    def rule(self, name: str) -> Any:
        """`units`, `clip`, `target_kind` or `batchnorm_start` in effect."""
        value = getattr(self, name)
        return COMPATIBILITY[self.compatibility][name] if value is None else value

    def threat(self, part: Slice) -> Threat:
        """The attack that makes a slice's examples. Raises `ValueError` where there can be none.

        `targets` is read only where the goal looks at several images, as not every method declares it.
        """
        if part.goal is None:
            raise ValueError(f"slice '{part.name}' is clean: it has no attack")
        return Threat(
            goal=part.goal,
            epsilon=self.epsilon if part.epsilon is None else part.epsilon,
            units=self.rule("units"),
            steps=self.steps,
            targets=(part.targets or self.targets) if get_goal(part.goal).many else 1,
            start_noise=self.start_noise,
        )


COMPATIBILITY = {
    "mdprop": {"units": "pixel", "clip": "valid", "target_kind": "other_class", "batchnorm_start": "copy"},
    "authors": {"units": "normalized", "clip": "batch", "target_kind": "any", "batchnorm_start": "reset"},
}

_SHARED = set(Threat.model_fields) - {"goal"}


class AdversarySettings(Section):
    """What every trained model meets.

    branches: the batch-norm branches that models answer through, and are attacked through.
    sets: attacks by name; what one leaves out it takes from the keys above.
    """

    branches: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    queries: NonNegative
    seed: Seed
    epsilon: Radius
    norm: Literal["linf", "l2"]
    units: Units
    steps: Positive
    step_ratio: Share | None
    restarts: Positive
    targets: Positive
    start_noise: Radius | None
    optimizer: Literal["pgd", "apgd", "square", "noise"]
    protocol: ProtocolName
    sets: dict[Name, Threat]

    @model_validator(mode="before")
    @classmethod
    def _complete_sets(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("sets"), dict):
            return values
        for name, own in values["sets"].items():
            if not isinstance(own, (dict, Threat)):
                raise ValueError(
                    f"sets.{name} = {own!r}: a set is {{goal: ..., epsilon: ...}}; up to 0.1 it was a radius "
                    "with the goal in its name, see CHANGELOG.md"
                )
        shared = {key: values[key] for key in _SHARED if key in values}
        sets = {n: {**shared, **own} if isinstance(own, dict) else own for n, own in values["sets"].items()}
        return {**values, "sets": sets}

    @field_validator("branches")
    @classmethod
    def _branches(cls, branches: tuple[str, ...]) -> tuple[str, ...]:
        for branch in branches:
            parse_branch(branch)
        if len(set(branches)) != len(branches):
            raise ValueError("names a branch twice")
        return branches

    @field_validator("sets")
    @classmethod
    def _named(cls, sets: dict[str, Threat]) -> dict[str, Threat]:
        if not sets:
            raise ValueError("name at least one set, such as single_target: {goal: single_target}")
        for name in (CLEAN, GALLERY, WORST_CASE, SCORE, CHECKS):
            if name in sets:
                raise ValueError(f"'{name}' is taken: give the set another name")
        return sets
