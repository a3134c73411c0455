"""Naming batch-norm branches, and mixtures of two: which network a trained model is taken for."""

from __future__ import annotations

import re
from dataclasses import dataclass

CLEAN = "clean"
"""The branch of clean images, and the set of clean test images."""

ALL = "all"
"""In place of a branch: an attack on every branch of a network at once."""

_NAME = "[A-Za-z0-9_-]+"
_FORM = re.compile(rf"({_NAME})(?:\+([1-9][0-9]?)%({_NAME}))?")


@dataclass(frozen=True)
class Branch:
    """One branch, or a mixture of two; `str` gives the notation back.

    first: the branch's name; in a mixture, the one with the rest of the weight.
    second: the other branch of a mixture.
    percent: the weight of `second`, 1 to 99; 0 without one.
    """

    first: str
    second: str | None = None
    percent: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The one or two branches that a network needs for it."""
        return (self.first,) if self.second is None else (self.first, self.second)

    def __str__(self) -> str:
        return self.first if self.second is None else f"{self.first}+{self.percent}%{self.second}"


def parse_branch(text: str) -> Branch:
    """The branch that `text` names: "clean", or "clean+25%multi_target" for 75 % and 25 % of two.

    Raises `ValueError`, one line, for any other form and for a mixture of a branch with itself.

    >>> parse_branch("clean+25%multi_target")
    Branch(first='clean', second='multi_target', percent=25)
    >>> parse_branch("clean").names
    ('clean',)
    """
    found = _FORM.fullmatch(text)
    if not found:
        raise ValueError(
            f"{text!r} is no batch-norm branch; write a name, like 'clean', or a mixture of two with a whole "
            "percentage from 1 to 99 of the second, like 'clean+25%multi_target'; names are made of letters, "
            "digits, '_' and '-'"
        )
    first, percent, second = found.groups()
    if first == second:
        raise ValueError(f"'{text}' mixes a batch-norm branch with itself; write '{first}'")
    return Branch(first, second, int(percent or 0))
