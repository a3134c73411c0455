"""Whether attacks are as strong as they should be: Recall@1 under one against that under another."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import permutations

from mdprop.attacks.threat import Threat
from mdprop.branches import CLEAN
from mdprop.robustness.checks.finding import Check, Sign, percent
from mdprop.robustness.evidence import Evidence, alike
from mdprop.statistics import Interval

MARGIN = 0.01
"""Differences of Recall@1 below one point are not spoken of, however certain they are: an attack does
not make Recall@1 itself small, and of many comparisons between equals some lie beyond their interval."""

GREY = 0.5
"""From this change of every pixel on, plain grey is within reach of every image, and nothing can be told."""


def more_search_helps(evidence: Evidence) -> Iterator[Sign]:
    attacks = evidence.harmful()
    for weak, strong in permutations(attacks, 2):
        ours, theirs = attacks[strong], attacks[weak]
        more = ours.steps >= theirs.steps and ours.restarts >= theirs.restarts
        same = (ours.steps, ours.restarts) == (theirs.steps, theirs.restarts)
        if more and not same and alike(ours, theirs, ("steps", "restarts")):
            yield from _above(evidence, strong, weak, "more steps or restarts must not help the defender")


def beats_white_box(kind: Callable[[Threat], bool], rule: str) -> Check:
    """A check of attacks of a kind that know less than the white box, against the strongest one."""
    means = ("optimizer", "steps", "step_ratio", "restarts", "start_noise", "branch", "source")

    def check(evidence: Evidence) -> Iterator[Sign]:
        attacks, white_boxes = evidence.harmful(), evidence.white_boxes()
        for name in (name for name, threat in attacks.items() if kind(threat)):
            white = [n for n, threat in white_boxes.items() if alike(threat, attacks[name], means)]
            if white:
                yield from _above(evidence, min(white, key=evidence.recall), name, rule)

    return check


def survives_any_radius(evidence: Evidence) -> Iterator[Sign]:
    for name, threat in evidence.white_boxes().items():
        if threat.epsilon < _grey_radius(threat, evidence.components) or not evidence.above_chance(name):
            continue
        recall, chance = evidence.recall(name), evidence.chance(name)
        text = (
            f"{name} leaves Recall@1 at {percent(recall)}, above the {percent(chance)} of chance, though "
            f"its epsilon of {threat.epsilon:g} lets it make any image plain grey"
        )
        yield (name,), text, {"recall": recall, "chance": chance, "epsilon": threat.epsilon}


def noise_does_as_much(evidence: Evidence) -> Iterator[Sign]:
    attacks = evidence.white_boxes()
    free = tuple(set(Threat.model_fields) - {"norm", "epsilon", "units"})
    for control, threat in evidence.attacks().items():
        if threat.optimizer != "noise" or "hit" not in evidence.parts[control]:
            continue
        rivals = [name for name, attack in attacks.items() if alike(attack, threat, free)]
        if not rivals or evidence.difference(control, CLEAN).high >= 0:
            continue
        for name in rivals:
            gain = evidence.difference(name, control)
            if gain.high < 0 or not evidence.above_chance(name):
                continue
            text = (
                f"{name} brings Recall@1 to {percent(evidence.recall(name))}, noise alone ({control}) to "
                f"{percent(evidence.recall(control))} ({_points(gain)}): an attack must do more"
            )
            yield (name, control), text, _numbers(evidence, name, control, gain)


def _above(evidence: Evidence, higher: str, lower: str, rule: str) -> Iterator[Sign]:
    """A sign where Recall@1 of `higher` is above that of `lower` by `MARGIN` and beyond the interval."""
    gap = evidence.difference(higher, lower)
    if gap.value >= MARGIN and gap.low > 0:
        text = (
            f"{higher} leaves Recall@1 at {percent(evidence.recall(higher))}, above the "
            f"{percent(evidence.recall(lower))} of {lower} ({_points(gap)}): {rule}"
        )
        yield (higher, lower), text, _numbers(evidence, higher, lower, gap)


def _numbers(evidence: Evidence, ours: str, theirs: str, gap: Interval) -> dict[str, float]:
    recalls = {"recall": evidence.recall(ours), "other_recall": evidence.recall(theirs)}
    return {**recalls, "difference": gap.value, "low": gap.low, "high": gap.high}


def _grey_radius(threat: Threat, components: int | None) -> float:
    """The epsilon that brings plain grey into reach; infinite where that is not known."""
    if threat.units != "pixel":
        return math.inf
    if threat.norm == "linf":
        return GREY
    return math.inf if components is None else GREY * math.sqrt(components)


def _points(gap: Interval) -> str:
    return f"{100 * gap.value:+.1f} points, {100 * gap.low:+.1f} to {100 * gap.high:+.1f}"
