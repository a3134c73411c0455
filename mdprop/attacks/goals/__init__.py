"""What attacks want, by name. A new goal is a file here and a line in `GOALS`."""

from __future__ import annotations

from mdprop.attacks.goals.away import UNTARGETED
from mdprop.attacks.goals.goal import Goal
from mdprop.attacks.goals.towards import MULTI_TARGET, SINGLE_TARGET, UNADVERSARIAL
from mdprop.errors import ParameterError

__all__ = ["GOALS", "Goal", "get_goal"]

GOALS: dict[str, Goal] = {
    goal.name: goal
    for goal in (
        SINGLE_TARGET,
        MULTI_TARGET,
        UNTARGETED,
        UNADVERSARIAL,
    )
}
"""In the order in which tables show them."""


def get_goal(name: str) -> Goal:
    """The goal of that name; `ParameterError` names the known ones."""
    if name not in GOALS:
        raise ParameterError(f"unknown goal '{name}'; known: {', '.join(GOALS)}")
    return GOALS[name]
