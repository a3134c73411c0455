"""Methods that differ in the number of targets only."""

from __future__ import annotations

from collections.abc import Sequence

from mdprop.attacks.goals import get_goal
from mdprop.methods import Method, Slice


def target_ablations(methods: Sequence[Method], targets: int) -> list[dict[int, str]]:
    """T -> method, of each group of two or more that differ in the targets T of their slices only.

    targets: what slices have that do not say it themselves. A method whose slices have several T is left
    out, and so is one after another that is the same.
    """
    groups: dict[tuple[Slice, ...], dict[int, str]] = {}
    for method in methods:
        many = [part for part in method.slices if part.goal is not None and get_goal(part.goal).many]
        found = {part.targets or targets for part in many}
        if len(found) == 1:
            alike = tuple(part.model_copy(update={"targets": None}) for part in method.slices)
            groups.setdefault(alike, {}).setdefault(found.pop(), method.name)
    return [group for group in groups.values() if len(group) > 1]
