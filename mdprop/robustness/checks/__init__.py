"""Checks against false robustness: what in a run's own numbers says that attacks failed for no good reason.

Source of most: Carlini et al., "On evaluating adversarial robustness" (arXiv 1902.06705), and Athalye et
al., "Obfuscated gradients give a false sense of security" (arXiv 1802.00420).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from mdprop.attacks.threat import Threat
from mdprop.branches import CLEAN
from mdprop.data.stores.embeddings import read_embeddings
from mdprop.files import sealed_json
from mdprop.robustness.checks import soundness, strength
from mdprop.robustness.checks.finding import Check, Finding
from mdprop.robustness.evidence import Columns, Evidence
from mdprop.robustness.score import spread
from mdprop.runs import ALONE, GALLERY, Run

__all__ = ["CHECKS", "Finding", "check_run", "counts", "find", "to_json"]

CHECKS: dict[str, Check] = {
    "more_search_helps": strength.more_search_helps,
    "epsilon_zero_moves": soundness.epsilon_zero_moves,
    "survives_any_radius": strength.survives_any_radius,
    "noise_does_as_much": strength.noise_does_as_much,
    "black_box_wins": strength.beats_white_box(
        lambda t: t.source is None and t.optimizer == "square",
        "a search without gradients must not do better",
    ),
    "other_branch_wins": strength.beats_white_box(
        lambda t: t.source is None and t.branch is not None, "an attack on other branches must not do better"
    ),
    "transfer_wins": strength.beats_white_box(
        lambda t: t.source is not None, "an attack on another network must not do better"
    ),
    "no_gradient": soundness.no_gradient,
    "broken_gradient": soundness.broken_gradient,
    "beyond_epsilon": soundness.beyond_epsilon,
    "out_of_range": soundness.out_of_range,
    "other_when_saved": soundness.other_when_saved,
    "changes_with_batch": soundness.changes_with_batch,
    "collapsed": soundness.collapsed,
}
"""By name. Another is a function here and a line."""


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
    queries, _, clean = read_embeddings(run.embeddings(branch, CLEAN))
    some, _, alone = read_embeddings(run.embeddings(branch, ALONE))
    apart = np.linalg.norm(clean[np.isin(queries, some)] - alone, axis=1)
    separate = run.embeddings(branch, GALLERY)
    ids, labels, _ = read_embeddings(separate if separate.exists() else run.embeddings(branch, CLEAN))
    own = {str(part["set"][0]): part for part in parts if part["branch"][0] == branch}
    seen = {name: threat.seen_from(branch) for name, threat in threats.items()}
    return find(Evidence(own, seen, spread(clean), ids, labels, components, float(apart.max())))


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
    return sealed_json(content, allow_nan=False)
