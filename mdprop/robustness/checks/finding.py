"""What a check says, and how it says it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mdprop.robustness.evidence import Evidence


@dataclass(frozen=True)
class Finding:
    """What a check found.

    check: a name of `CHECKS`. sets: those it is about. text: one sentence, numbers and all.
    numbers: those of the text, by name; shares are in [0, 1].
    """

    check: str
    sets: tuple[str, ...]
    text: str
    numbers: dict[str, float]


Sign = tuple[tuple[str, ...], str, dict[str, float]]
"""A `Finding` without its check."""

Check = Callable[[Evidence], Iterator[Sign]]


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"
