"""The input distributions, and the training methods made of them.

A method is data: which distributions fill its batch, in which share of the clean batch, and
through which batch-norm branch each of them goes. A new method is a new entry in `METHODS`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Literal

from mdprop.errors import ParameterError

CLEAN = "clean"
GALLERY = "gallery"
"""The clean images that queries search, in data sets that keep the two apart."""

Goal = Literal["single_target", "multi_target", "untargeted", "unadversarial"]
GOALS: tuple[Goal, ...] = ("single_target", "multi_target", "untargeted", "unadversarial")

TargetKind = Literal["other_class", "any", "same_class"]


@dataclass(frozen=True)
class Distribution:
    """One slice of a training batch.

    name: `clean`, `single_target`, `multi_target` or `unadversarial`.
    share: its size, as a share of the clean batch.
    branch: the batch-norm branch that it goes through.
    """

    name: str
    share: Fraction
    branch: str


@dataclass(frozen=True)
class Method:
    """A training method: the distributions of one batch, the clean one first."""

    name: str
    distributions: tuple[Distribution, ...]

    @property
    def branches(self) -> tuple[str, ...]:
        """The batch-norm branches that the network needs, in the order of their first use."""
        return tuple(dict.fromkeys(d.branch for d in self.distributions))

    @property
    def adversarial(self) -> tuple[Distribution, ...]:
        return self.distributions[1:]

    @property
    def uses_multi_target(self) -> bool:
        return any(d.name == "multi_target" for d in self.distributions)

    @property
    def family(self) -> str:
        """The list under `methods` in params.yaml (and the DVC stage) that the method belongs to."""
        if self.uses_multi_target:
            return "multi_target"
        return "single_target" if self.adversarial else "clean"

    def slices(self, batch_size: int) -> dict[str, int]:
        """The rows of each distribution for a clean batch of `batch_size` images.

        >>> METHODS["mdprop"].slices(64)
        {'clean': 64, 'single_target': 32, 'multi_target': 32}
        """
        ends = [0]
        total = Fraction(0)
        for distribution in self.adversarial:
            total += distribution.share
            ends.append(round(total * batch_size))
        sizes = (b - a for a, b in pairwise(ends))
        return {CLEAN: batch_size, **{d.name: n for d, n in zip(self.adversarial, sizes, strict=True)}}

    def rows(self, batch_size: int) -> Iterator[tuple[Distribution, list[int]]]:
        """Which clean images each adversarial distribution is made from.

        The slices follow each other through the batch, so shares that add up to 1 attack each
        image once (section 3 of the paper: the first half single-targeted, the second half
        multi-targeted).
        """
        slices = self.slices(batch_size)
        start = 0
        for distribution in self.adversarial:
            size = slices[distribution.name]
            yield distribution, [i % batch_size for i in range(start, start + size)]
            start += size

    def routes(self, slices: dict[str, int]) -> dict[str, int]:
        """The rows of each batch-norm branch for the given `slices`, in order."""
        routes: dict[str, int] = {}
        for distribution in self.distributions:
            if distribution.name in slices:
                routes[distribution.branch] = routes.get(distribution.branch, 0) + slices[distribution.name]
        return routes


def _method(name: str, *adversarial: tuple[str, Fraction], shared: bool = False) -> Method:
    slices = [Distribution(CLEAN, Fraction(1), CLEAN)]
    slices += [Distribution(kind, share, CLEAN if shared else kind) for kind, share in adversarial]
    return Method(name, tuple(slices))


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        _method("standard"),
        _method("at", ("single_target", Fraction(1)), shared=True),
        _method("advprop", ("single_target", Fraction(1))),
        _method("mdprop", ("single_target", Fraction(1, 2)), ("multi_target", Fraction(1, 2))),
        _method(
            "mdprop_unadv",
            ("single_target", Fraction(1, 3)),
            ("multi_target", Fraction(1, 3)),
            ("unadversarial", Fraction(1, 3)),
        ),
    )
}


def get_method(name: str) -> Method:
    """The method of that name; `ParameterError` names the known ones."""
    if name not in METHODS:
        raise ParameterError(f"unknown method '{name}'; known: {', '.join(METHODS)}")
    return METHODS[name]


def goal_of(input_set: str) -> Goal | None:
    """The goal that the name of an input set begins with; None for `clean`."""
    return next((goal for goal in GOALS if input_set.startswith(goal)), None)
