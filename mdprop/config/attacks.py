"""The sections of params.yaml about attacks: those of training, and those that trained models meet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from mdprop.attacks.goals import ProtocolName, get_goal
from mdprop.attacks.threat import RunName, Threat
from mdprop.branches import CLEAN, parse_branch
from mdprop.corruptions import parse_set
from mdprop.methods import Slice
from mdprop.runs import ALONE, CHECKS, CORRUPTED, GALLERY, SCORE, WORST_CASE
from mdprop.settings import (
    Name,
    Norm,
    OptimizerName,
    Radius,
    Refusals,
    Refused,
    Restarts,
    Section,
    Seed,
    Share,
    Steps,
    Targets,
    Units,
    alike,
    too_large,
    whole,
)


class AttackSettings(Section):
    """How training makes its examples; a rule that is None is the one of `compatibility`.

    shared_forward: targets are embeddings of the noisy start, from the pass that the first step makes
        anyway, instead of clean images. One pass less; without start noise the result is the same.
    """

    targets: Targets
    epsilon: Radius
    steps: Steps
    start_noise: Radius
    compatibility: Literal["mdprop", "authors"]
    units: Units | None
    clip: Literal["valid", "batch"] | None
    target_kind: Literal["other_class", "any"] | None
    batchnorm_start: Literal["copy", "reset"] | None
    shared_forward: bool

    def problems(self) -> Iterator[Refused]:
        for key in ("epsilon", "start_noise"):
            yield from too_large(key, getattr(self, key), self.rule("units"))

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
    sources: the runs whose adversarial images others answer too: those that sets have as `source`.
    draw: `queries` of the images, or whole classes until there are so many.
    sets: attacks by name; what one leaves out it takes from the keys above.
    """

    branches: Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
    sources: Annotated[tuple[RunName, ...], Field(strict=False)]
    queries: Annotated[int, whole(10, 10_000_000, or_zero=True)]
    draw: Literal["images", "classes"]
    seed: Seed
    epsilon: Radius
    norm: Norm
    units: Units
    steps: Steps
    step_ratio: Share | None
    restarts: Restarts
    targets: Targets
    start_noise: Radius | None
    optimizer: OptimizerName
    protocol: ProtocolName
    sets: dict[Name, Threat]

    @model_validator(mode="before")
    @classmethod
    def _complete_sets(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not isinstance(values.get("sets"), dict):
            return values
        radius = "a set is {goal: ..., epsilon: ...}; up to 0.1 it was a radius with the goal in its name"
        old = [name for name, own in values["sets"].items() if not isinstance(own, (dict, Threat))]
        if old:
            raise Refusals([Refused(f"sets.{name}", f"{radius}, see CHANGELOG.md") for name in old])
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
        for name in sets:
            if name.lower() in (CLEAN, GALLERY, ALONE, WORST_CASE, SCORE, CHECKS, CORRUPTED):
                raise ValueError(f"'{name}' is taken: give the set another name")
            if parse_set(name):
                raise ValueError(f"'{name}' is a corruption: give the set another name")
        for name in alike(sets):
            raise ValueError(f"'{name}' differs from another set by case only: rename one")
        return sets

    def problems(self) -> Iterator[Refused]:
        """Sources stand twice, as DVC makes a stage of each item of a list."""
        if len(set(self.sources)) != len(self.sources):
            yield Refused("sources", "names a run twice: name it once")
        for name, threat in self.sets.items():
            if threat.source is not None and threat.source not in self.sources:
                yield Refused(f"sets.{name}.source", "add it to adversary.sources")
        used = {threat.source for threat in self.sets.values()}
        for source in self.sources:
            if source not in used:
                yield Refused("sources", f"no set has the source '{source}'; leave it out")
