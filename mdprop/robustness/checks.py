"""Checks against false robustness: what in a run's own numbers says that attacks failed for no good reason.

Source of most: Carlini et al., "On evaluating adversarial robustness" (arXiv 1902.06705), and Athalye et
al., "Obfuscated gradients give a false sense of security" (arXiv 1802.00420).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import permutations

import numpy as np

from mdprop.attacks.goals.away import Away
from mdprop.attacks.threat import Threat
from mdprop.branches import CLEAN
from mdprop.data.stores.embeddings import read_embeddings
from mdprop.robustness.evidence import Columns, Evidence, alike
from mdprop.robustness.score import COLLAPSED, spread
from mdprop.runs import GALLERY, Run
from mdprop.statistics import Interval

MARGIN = 0.01
"""Differences of Recall@1 below one point are not spoken of, however certain they are: an attack does
not make Recall@1 itself small, and of many comparisons between equals some lie beyond their interval."""

GREY = 0.5
"""From this change of every pixel on, plain grey is within reach of every image, and nothing can be told."""

ZERO_GRADIENTS = 0.05
"""Of the images. Without a gradient by chance are fewer: a network must be flat in every pixel at once."""

EMBEDDING_TOLERANCE = 1e-3
"""Of a distance between embeddings of length 1; what float32 and the size of a batch change is smaller."""

SIZE_TOLERANCE = 1e-3
"""Of a perturbation's norm, as a share of epsilon."""

PIXEL_ROUNDING = 1e-6
"""Of pixels in [0, 1] in float32."""

_FLOOR_AWAY = -2.0  # two embeddings of length 1 are no farther apart
_FLOOR_TOLERANCE = 1e-6


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


def check_run(
    run: Run,
    branch: str,
    parts: Sequence[Columns],
    threats: Mapping[str, Threat],
    components: int | None = None,
) -> list[Finding]:
    """What the checks find in a run that answers through `branch`.

    parts: the columns of each input set, as `evaluate_run` returns them; other branches are left out.
    components: how many numbers an image has (C·H·W), for radii in l2.
    """
    _, _, clean = read_embeddings(run.embeddings(branch, CLEAN))
    separate = run.embeddings(branch, GALLERY)
    ids, labels, _ = read_embeddings(separate if separate.exists() else run.embeddings(branch, CLEAN))
    own = {str(part["set"][0]): part for part in parts if part["branch"][0] == branch}
    return find(Evidence(own, threats, spread(clean), ids, labels, components))


def find(evidence: Evidence) -> list[Finding]:
    """What all checks find, in the order of `CHECKS`."""
    return [Finding(name, *sign) for name, check in CHECKS.items() for sign in check(evidence)]


def counts(findings: Sequence[Finding]) -> dict[str, float]:
    """How often each check found something, for metrics.json."""
    return {name: sum(finding.check == name for finding in findings) for name in CHECKS}


def to_json(findings: Mapping[str, Sequence[Finding]]) -> str:
    """checks.json: the findings of each branch; a number that is not finite is null."""
    content = {
        branch: [
            asdict(f) | {"numbers": {k: v if math.isfinite(v) else None for k, v in f.numbers.items()}}
            for f in found
        ]
        for branch, found in findings.items()
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def _more_search_helps(evidence: Evidence) -> Iterator[Sign]:
    attacks = evidence.harmful()
    for weak, strong in permutations(attacks, 2):
        ours, theirs = attacks[strong], attacks[weak]
        more = ours.steps >= theirs.steps and ours.restarts >= theirs.restarts
        same = (ours.steps, ours.restarts) == (theirs.steps, theirs.restarts)
        if more and not same and alike(ours, theirs, ("steps", "restarts")):
            yield from _above(evidence, strong, weak, "more steps or restarts must not help the defender")


def _black_box_wins(evidence: Evidence) -> Iterator[Sign]:
    attacks, white_boxes = evidence.harmful(), evidence.with_gradients()
    means = ("optimizer", "steps", "step_ratio", "restarts", "start_noise")
    for box in (name for name, threat in attacks.items() if threat.optimizer == "square"):
        white = [n for n, threat in white_boxes.items() if alike(threat, attacks[box], means)]
        if white:
            strongest = min(white, key=evidence.recall)
            yield from _above(evidence, strongest, box, "a search without gradients must not do better")


def _epsilon_zero_moves(evidence: Evidence) -> Iterator[Sign]:
    clean = evidence.parts[CLEAN]
    for name in (name for name, threat in evidence.attacks().items() if threat.epsilon == 0):
        part, flipped = evidence.parts[name], 0
        if "hit" in part:
            _, i, j = np.intersect1d(part["id"], clean["id"], return_indices=True)
            flipped = int((part["hit"][i] != clean["hit"][j]).sum())
        moved = float(part["moved"].max())
        if flipped or not moved <= EMBEDDING_TOLERANCE:
            text = (
                f"with epsilon 0, {name} is not the clean images: {flipped} of {len(part['id'])} queries "
                f"find something else, and embeddings are up to {moved:.3g} away"
            )
            yield (name,), text, {"flipped": flipped, "moved": moved}


def _survives_any_radius(evidence: Evidence) -> Iterator[Sign]:
    for name, threat in evidence.with_gradients().items():
        if threat.epsilon < _grey_radius(threat, evidence.components) or not evidence.above_chance(name):
            continue
        recall, chance = evidence.recall(name), evidence.chance(name)
        text = (
            f"{name} leaves Recall@1 at {_percent(recall)}, above the {_percent(chance)} of chance, though "
            f"its epsilon of {threat.epsilon:g} lets it make any image plain grey"
        )
        yield (name,), text, {"recall": recall, "chance": chance, "epsilon": threat.epsilon}


def _noise_does_as_much(evidence: Evidence) -> Iterator[Sign]:
    attacks = evidence.with_gradients()
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
                f"{name} brings Recall@1 to {_percent(evidence.recall(name))}, noise alone ({control}) to "
                f"{_percent(evidence.recall(control))} ({_points(gain)}): an attack must do more"
            )
            yield (name, control), text, _numbers(evidence, name, control, gain)


def _no_gradient(evidence: Evidence) -> Iterator[Sign]:
    """Where a hinge is at 0, or an image has arrived at its target, there rightly is none."""
    for name, threat in evidence.attacks().items():
        if threat.epsilon == 0:
            continue
        part = evidence.parts[name]
        floor = _FLOOR_AWAY if isinstance(threat.wants, Away) else 0.0
        share = float((part["zero_gradient"] & (part["objective"] > floor + _FLOOR_TOLERANCE)).mean())
        if share > ZERO_GRADIENTS:
            text = (
                f"{name} meets gradients of exactly 0 at {_percent(share)} of its images, without having "
                f"reached its goal there (up to {_percent(ZERO_GRADIENTS)} would do)"
            )
            yield (name,), text, {"share": share}


def _broken_gradient(evidence: Evidence) -> Iterator[Sign]:
    for name in evidence.attacks():
        share = float(evidence.parts[name]["broken_gradient"].mean())
        if share > 0:
            text = f"{name} meets gradients that are not finite at {_percent(share)} of its images"
            yield (name,), text, {"share": share}


def _beyond_epsilon(evidence: Evidence) -> Iterator[Sign]:
    for name, threat in evidence.attacks().items():
        part, epsilon = evidence.parts[name], threat.epsilon
        size = float(part["size"].max()) * (epsilon or 1.0)
        if not size <= epsilon * (1 + SIZE_TOLERANCE) + PIXEL_ROUNDING:
            text = f"{name} changes an image by {size:.6g}, more than its epsilon of {epsilon:g}"
            yield (name,), text, {"size": size, "epsilon": epsilon}


def _out_of_range(evidence: Evidence) -> Iterator[Sign]:
    for name in evidence.attacks():
        outside = float(evidence.parts[name]["outside"].max())
        if not outside <= PIXEL_ROUNDING:
            yield (name,), f"{name} has pixels {outside:.6g} outside [0, 1]", {"outside": outside}


def _other_when_saved(evidence: Evidence) -> Iterator[Sign]:
    for name in evidence.attacks():
        part = evidence.parts[name]
        apart = float(np.abs(part["moved"] - part["moved_in_attack"]).max())
        if not apart <= EMBEDDING_TOLERANCE:
            text = (
                f"the saved images of {name}, embedded again, lie up to {apart:.3g} nearer or farther than "
                f"in the attack ({EMBEDDING_TOLERANCE:g} would do)"
            )
            yield (name,), text, {"apart": apart}


def _collapsed(evidence: Evidence) -> Iterator[Sign]:
    if evidence.spread < COLLAPSED:
        text = (
            f"the clean embeddings are all but one point (mean cosine distance {evidence.spread:.3g}, below "
            f"{COLLAPSED:g}): what attacks cannot move says nothing"
        )
        yield (CLEAN,), text, {"spread": evidence.spread}


CHECKS: dict[str, Callable[[Evidence], Iterator[Sign]]] = {
    "more_search_helps": _more_search_helps,
    "epsilon_zero_moves": _epsilon_zero_moves,
    "survives_any_radius": _survives_any_radius,
    "noise_does_as_much": _noise_does_as_much,
    "black_box_wins": _black_box_wins,
    "no_gradient": _no_gradient,
    "broken_gradient": _broken_gradient,
    "beyond_epsilon": _beyond_epsilon,
    "out_of_range": _out_of_range,
    "other_when_saved": _other_when_saved,
    "collapsed": _collapsed,
}
"""By name. Another is a function here and a line."""


def _above(evidence: Evidence, higher: str, lower: str, rule: str) -> Iterator[Sign]:
    """A sign where Recall@1 of `higher` is above that of `lower` by `MARGIN` and beyond the interval."""
    gap = evidence.difference(higher, lower)
    if gap.value >= MARGIN and gap.low > 0:
        text = (
            f"{higher} leaves Recall@1 at {_percent(evidence.recall(higher))}, above the "
            f"{_percent(evidence.recall(lower))} of {lower} ({_points(gap)}): {rule}"
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


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _points(gap: Interval) -> str:
    return f"{100 * gap.value:+.1f} points, {100 * gap.low:+.1f} to {100 * gap.high:+.1f}"
