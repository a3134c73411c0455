"""What params.yaml would say, from the arguments of `fit` and `evaluate`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from mdprop.attacks.threat import Threat
from mdprop.branches import CLEAN
from mdprop.config.attacks import AdversarySettings, AttackSettings
from mdprop.config.problems import problem_lines
from mdprop.config.schema import LearningRates, TrainSettings
from mdprop.errors import ParameterError
from mdprop.settings import Section

GOALS = ("single_target", "multi_target", "untargeted")
"""Of the attacks that `evaluate` makes where it is given none."""

Some = TypeVar("Some", bound=Section)


def train_settings(epochs: int, learning_rate: float) -> TrainSettings:
    rates = LearningRates(**dict.fromkeys(LearningRates.model_fields))
    return section(
        TrainSettings,
        {
            "epochs": epochs,
            "head_epochs": 0,
            "batch_size": 64,  # the loader's decides
            "images_per_class": 2,
            "class_replacement": False,
            "learning_rate": learning_rate,
            "learning_rates": rates,
            "weight_decay": 4e-4,
            "schedule": "one_cycle",
            "precision": "float32",
            "validate_every": 0,
        },
    )


def attack_settings(epsilon: float, steps: int, targets: int) -> AttackSettings:
    rules = dict.fromkeys(("units", "clip", "target_kind", "batchnorm_start"))
    start = epsilon / 8 if isinstance(epsilon, (int, float)) else 0.0
    values = {
        "targets": targets,
        "epsilon": epsilon,
        "steps": steps,
        "start_noise": start,
        "shared_forward": False,
    }
    return section(AttackSettings, {**rules, **values, "compatibility": "mdprop"})


def section(kind: type[Some], values: dict[str, Any]) -> Some:
    """A section with these values; `ParameterError`, one line, for those that it refuses."""
    try:
        return kind(**values)
    except ValidationError as error:
        raise ParameterError("; ".join(problem_lines(error, values))) from None


def default_attacks(epsilon: float) -> dict[str, Threat]:
    means = {"epsilon": epsilon, "steps": 10, "step_ratio": 0.25}
    return {goal: section(Threat, {"goal": goal, **means}) for goal in GOALS}


def adversary_settings(sets: Mapping[str, Threat], queries: int, seed: int) -> AdversarySettings:
    values = {
        "branches": (CLEAN,),
        "sources": (),
        "queries": queries,
        "draw": "images",
        "seed": seed,
        "sets": dict(sets),
    }
    shared = {
        name: field.get_default()
        for name, field in Threat.model_fields.items()
        if name in AdversarySettings.model_fields
    }
    return section(AdversarySettings, {**shared, "epsilon": 0.0, **values})  # each set has its own
