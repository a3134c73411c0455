"""Goals of RobRank (github.com/cdluminate/robrank) in two forms: mended, the default, and as published."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from mdprop.attacks.goals.goal import BaseGoal, Goal

ProtocolName = Literal["mdprop", "robrank"]


@dataclass(frozen=True, kw_only=True)
class Published(BaseGoal):
    """published: as in RobRank's code, for comparison with its tables; otherwise with its faults mended."""

    published: bool = False


def in_protocol(goal: Goal, protocol: ProtocolName) -> Goal:
    """A goal of `GOALS` in the form of a protocol; "robrank" leaves goals that are not RobRank's as they are.

    RobRank starts at the clean image, so none of its goals needs a start beside it.
    """
    if protocol not in get_args(ProtocolName):
        raise ValueError(f"unknown protocol '{protocol}'; known: {', '.join(get_args(ProtocolName))}")
    if protocol == "robrank" and isinstance(goal, Published):
        return replace(goal, published=True, needs_start=False)
    return goal
