"""Whether what was measured is what was attacked: gradients, perturbations, embeddings."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mdprop.attacks.goals.away import Away
from mdprop.branches import CLEAN
from mdprop.robustness.checks.finding import Sign, percent
from mdprop.robustness.evidence import Evidence
from mdprop.robustness.score import COLLAPSED

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


def epsilon_zero_moves(evidence: Evidence) -> Iterator[Sign]:
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


def no_gradient(evidence: Evidence) -> Iterator[Sign]:
    """Where a hinge is at 0, or an image has arrived at its target, there rightly is none."""
    for name, threat in evidence.attacks().items():
        if threat.epsilon == 0:
            continue
        part = evidence.parts[name]
        floor = _FLOOR_AWAY if isinstance(threat.wants, Away) else 0.0
        share = float((part["zero_gradient"] & (part["objective"] > floor + _FLOOR_TOLERANCE)).mean())
        if share > ZERO_GRADIENTS:
            text = (
                f"{name} meets gradients of exactly 0 at {percent(share)} of its images, without having "
                f"reached its goal there (up to {percent(ZERO_GRADIENTS)} would do)"
            )
            yield (name,), text, {"share": share}


def broken_gradient(evidence: Evidence) -> Iterator[Sign]:
    for name in evidence.attacks():
        share = float(evidence.parts[name]["broken_gradient"].mean())
        if share > 0:
            text = f"{name} meets gradients that are not finite at {percent(share)} of its images"
            yield (name,), text, {"share": share}


def beyond_epsilon(evidence: Evidence) -> Iterator[Sign]:
    for name, threat in evidence.attacks().items():
        part, epsilon = evidence.parts[name], threat.epsilon
        size = float(part["size"].max()) * (epsilon or 1.0)
        if not size <= epsilon * (1 + SIZE_TOLERANCE) + PIXEL_ROUNDING:
            text = f"{name} changes an image by {size:.6g}, more than its epsilon of {epsilon:g}"
            yield (name,), text, {"size": size, "epsilon": epsilon}


def out_of_range(evidence: Evidence) -> Iterator[Sign]:
    for name in evidence.attacks():
        outside = float(evidence.parts[name]["outside"].max())
        if not outside <= PIXEL_ROUNDING:
            yield (name,), f"{name} has pixels {outside:.6g} outside [0, 1]", {"outside": outside}


def other_when_saved(evidence: Evidence) -> Iterator[Sign]:
    for name in evidence.attacks():
        part = evidence.parts[name]
        if "moved_in_attack" not in part:
            continue
        apart = float(np.abs(part["moved"] - part["moved_in_attack"]).max())
        if not apart <= EMBEDDING_TOLERANCE:
            text = (
                f"the saved images of {name}, embedded again, lie up to {apart:.3g} nearer or farther than "
                f"in the attack ({EMBEDDING_TOLERANCE:g} would do)"
            )
            yield (name,), text, {"apart": apart}


def changes_with_batch(evidence: Evidence) -> Iterator[Sign]:
    if not evidence.apart_alone <= EMBEDDING_TOLERANCE:
        text = (
            f"a clean image that is embedded alone lies up to {evidence.apart_alone:.3g} from where it lies "
            f"when embedded with others ({EMBEDDING_TOLERANCE:g} would do)"
        )
        yield (CLEAN,), text, {"apart": evidence.apart_alone}


def collapsed(evidence: Evidence) -> Iterator[Sign]:
    if evidence.spread < COLLAPSED:
        text = (
            f"the clean embeddings are all but one point (mean cosine distance {evidence.spread:.3g}, below "
            f"{COLLAPSED:g}): what attacks cannot move says nothing"
        )
        yield (CLEAN,), text, {"spread": evidence.spread}
