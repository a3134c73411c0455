"""Adversarial examples in the feature space: what they want (goals), by which means (threat), and how (pgd).

Goals and threats need no torch, as params.yaml is checked by them; what computes is imported when it
is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mdprop.attacks.goals import GOALS, Goal, get_goal
from mdprop.attacks.threat import Threat

if TYPE_CHECKING:
    from mdprop.attacks.norms import Bound
    from mdprop.attacks.pgd import best_of, feature_attack
    from mdprop.attacks.targets import TargetKind, choose_targets, target_rows

__all__ = [
    "GOALS",
    "Bound",
    "Goal",
    "TargetKind",
    "Threat",
    "best_of",
    "choose_targets",
    "feature_attack",
    "get_goal",
    "target_rows",
]

_HOMES = {
    "Bound": "norms",
    "TargetKind": "targets",
    "best_of": "pgd",
    "choose_targets": "targets",
    "feature_attack": "pgd",
    "target_rows": "targets",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")
