"""Input sets: their order, what to call them, and which of them make a curve."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from mdprop.attacks.goals import GOALS
from mdprop.attacks.threat import Threat
from mdprop.branches import CLEAN
from mdprop.corruptions import parse_set
from mdprop.report.aggregate import Summary
from mdprop.runs import CHECKS, SCORE, WORST_CASE

UNIT_LABELS = {"pixel": "pixels of [0, 1]", "normalized": "standard deviations of a channel"}
NORM_LABELS = {"linf": "ℓ∞", "l2": "ℓ2"}


@dataclass(frozen=True)
class InputSet:
    """One input distribution of the table.

    threat: None for clean images, and for a set whose attack is not known.
    label: what tells it from the other sets of its goal.
    levels: its radius in levels of 255, where that is to be shown.
    """

    name: str
    threat: Threat | None = None
    label: str = ""
    levels: str = ""

    @property
    def group(self) -> str:
        return self.threat.wants.label if self.threat else self.name.replace("_", " ")

    @property
    def title(self) -> str:
        return f"{self.group} {self.label}".strip()

    @property
    def epsilon(self) -> float | None:
        """0 for clean images, None where it is not known."""
        if self.threat is None:
            return 0.0 if self.name == CLEAN else None
        return self.threat.epsilon


@dataclass(frozen=True)
class Family:
    """Sets whose attacks differ in epsilon only; `label` tells the family from others of its goal."""

    sets: tuple[InputSet, ...]
    label: str = ""

    @property
    def threat(self) -> Threat:
        """The attack of its first set."""
        threat = self.sets[0].threat
        assert threat is not None
        return threat

    @property
    def title(self) -> str:
        return ", ".join(part for part in (self.threat.wants.label, self.label) if part)


def input_sets(summary: Summary, threats: Mapping[str, Threat]) -> list[InputSet]:
    """The input sets of the summary: clean, the worst case, then goal by goal with growing epsilon.

    threats: the attack of each set by name; those not named come last, under their own names. Of
    corruptions there is the mean only: see `corrupted_sets`.
    """
    named = dict.fromkeys(name for sets in summary.values() for name in sets)
    single = corrupted_sets(summary, threats)
    names = [name for name in named if name not in (CHECKS, SCORE, *single)]
    known = {name: threats[name] for name in names if name in threats}
    labels = _set_labels(known)
    attacked = [InputSet(name, known[name], labels[name]) for name in sorted(known, key=_place(known))]
    first = [InputSet(name) for name in (CLEAN, WORST_CASE) if name in names and name not in known]
    there = {*known, *(s.name for s in first)}
    return [*first, *attacked, *(InputSet(name) for name in names if name not in there)]


def corrupted_sets(summary: Summary, threats: Mapping[str, Threat]) -> dict[str, tuple[str, int]]:
    """Kind and severity of the corrupted input sets of the summary, by name."""
    named = dict.fromkeys(name for sets in summary.values() for name in sets if name not in threats)
    return {name: parsed for name in named if (parsed := parse_set(name))}


def families(sets: Iterable[InputSet]) -> list[Family]:
    """The sets with a known attack, as curves of growing epsilon, in their own order."""
    return [
        Family(members, label)
        for _, goal in _by_goal(_alike_but_for(sets, "epsilon"))
        for label, members in zip(
            _differences([means for means, _ in goal]), [m for _, m in goal], strict=True
        )
    ]


def step_families(sets: Iterable[InputSet]) -> list[Family]:
    """Sets whose attacks differ in their steps only, as curves of growing steps, of two or more."""
    found = {
        means: tuple(sorted(members, key=lambda s: s.threat.steps if s.threat else 0))
        for means, members in _alike_but_for(sets, "steps").items()
        if len({s.threat.steps for s in members if s.threat}) > 1
    }
    return [
        Family(members, ", ".join(part for part in (_radius(means, mixed=False), label) if part))
        for _, goal in _by_goal(found)
        for label, (means, members) in zip(_differences([means for means, _ in goal]), goal, strict=True)
    ]


def _alike_but_for(sets: Iterable[InputSet], field: str) -> dict[Threat, tuple[InputSet, ...]]:
    """The sets by their attack without this field."""
    found: dict[Threat, tuple[InputSet, ...]] = {}
    for s in sets:
        if s.threat is not None:
            means = _means(s.threat, field)
            found[means] = (*found.get(means, ()), s)
    return found


def _by_goal(
    found: Mapping[Threat, tuple[InputSet, ...]],
) -> list[tuple[str, list[tuple[Threat, tuple[InputSet, ...]]]]]:
    return [(goal, list(items)) for goal, items in groupby(found.items(), key=lambda item: item[0].goal)]


def levels(threat: Threat | None, channel_std: Sequence[float]) -> str:
    """The radius in levels of 255, `12.75/255`; empty where it is not one number for every channel."""
    if threat is None or threat.norm != "linf":
        return ""
    stds = set(channel_std) if threat.units == "normalized" else {1.0}
    return f"{255 * threat.epsilon * stds.pop():.4g}/255" if len(stds) == 1 else ""


def shown_units(sets: Iterable[InputSet]) -> list[str]:
    """The units that radii are given in, `pixel` first."""
    there = {s.threat.units for s in sets if s.threat}
    return [units for units in UNIT_LABELS if units in there]


def shown_norms(sets: Iterable[InputSet]) -> list[str]:
    there = {s.threat.norm for s in sets if s.threat}
    return [norm for norm in NORM_LABELS if norm in there]


def _place(threats: Mapping[str, Threat]) -> Any:
    goals, norms, units = list(GOALS), list(NORM_LABELS), list(UNIT_LABELS)

    def place(name: str) -> tuple[int, int, int, float, str]:
        t = threats[name]
        return goals.index(t.goal), norms.index(t.norm), units.index(t.units), t.epsilon, name

    return place


def _means(threat: Threat, field: str = "epsilon") -> Threat:
    """The attack without this number, and without a number of targets that its goal does not look at."""
    unused = {} if threat.wants.many else {"targets": 1}
    return threat.model_copy(update={field: 0, **unused})


def _set_labels(threats: Mapping[str, Threat]) -> dict[str, str]:
    """For each set its radius, and as much more as tells it from the others of its goal."""
    mixed = len({t.units for t in threats.values()}) > 1
    labels = {name: _radius(t, mixed) for name, t in threats.items()}
    for names in _alike(labels, threats):
        differences = _differences([_means(threats[name]) for name in names])
        labels |= {name: f"{labels[name]}, {d}" for name, d in zip(names, differences, strict=True) if d}
    for names in _alike(labels, threats):
        labels |= {name: f"{labels[name]}, {name}" for name in names}
    return labels


def _radius(threat: Threat, mixed: bool) -> str:
    """`ε 0.05`, with its units where the sets differ in them; `ℓ2 0.5`."""
    sign = "ε" if threat.norm == "linf" else NORM_LABELS[threat.norm]
    return f"{sign} {threat.epsilon:g}{f' {threat.units}' if mixed else ''}"


def _alike(labels: Mapping[str, str], threats: Mapping[str, Threat]) -> list[list[str]]:
    """The sets of one goal that have one label, where there are several."""
    counts = Counter((threats[name].goal, label) for name, label in labels.items())
    return [
        [name for name in labels if (threats[name].goal, labels[name]) == key]
        for key, count in counts.items()
        if count > 1
    ]


def _differences(threats: Sequence[Threat]) -> list[str]:
    """For each attack what it does not share with all the others: `ℓ2, steps 50, from at/0`."""
    fields = [
        field
        for field in Threat.model_fields
        if field not in ("goal", "epsilon") and len({getattr(t, field) for t in threats}) > 1
    ]
    words = [[_in_words(field, getattr(t, field)) for field in fields] for t in threats]
    return [", ".join(word for word in own if word) for own in words]


def _in_words(field: str, value: object) -> str:
    if field == "norm":
        return NORM_LABELS[str(value)]
    if field == "units":
        return str(value)
    if field in ("branch", "source"):
        return "" if value is None else f"{'through' if field == 'branch' else 'from'} {value}"
    text = "default" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return f"{field.replace('_', ' ')} {text}"
