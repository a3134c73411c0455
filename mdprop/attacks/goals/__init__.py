"""What attacks want, by name. A new goal is a file here and a line in `GOALS`."""

from __future__ import annotations

from mdprop.attacks.goals.away import FROM_CENTROID, UNTARGETED
from mdprop.attacks.goals.goal import BaseGoal, Gallery, Goal
from mdprop.attacks.goals.protocols import ProtocolName, in_protocol
from mdprop.attacks.goals.ranks import CA_MINUS, CA_PLUS, GTT, QA_MINUS, QA_PLUS
from mdprop.attacks.goals.robrank import ES, GTM, LTM, TMA
from mdprop.attacks.goals.towards import MULTI_TARGET, NEAREST_OTHER, SINGLE_TARGET, UNADVERSARIAL
from mdprop.errors import ParameterError

__all__ = ["GOALS", "BaseGoal", "Gallery", "Goal", "ProtocolName", "get_goal", "in_protocol"]

GOALS: dict[str, Goal] = {
    goal.name: goal
    for goal in (
        SINGLE_TARGET,
        MULTI_TARGET,
        UNTARGETED,
        UNADVERSARIAL,
        NEAREST_OTHER,
        FROM_CENTROID,
        CA_PLUS,
        CA_MINUS,
        QA_PLUS,
        QA_MINUS,
        TMA,
        ES,
        LTM,
        GTM,
        GTT,
    )
}
"""In the order in which tables show them."""


def get_goal(name: str) -> Goal:
    """The goal of that name; `ParameterError` names the known ones."""
    if name not in GOALS:
        raise ParameterError(f"unknown goal '{name}'; known: {', '.join(GOALS)}")
    return GOALS[name]
