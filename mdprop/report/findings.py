"""What the checks against false robustness found in the runs."""

from __future__ import annotations

from collections.abc import Sequence

from mdprop.branches import CLEAN
from mdprop.errors import ResultError
from mdprop.files import read_sealed_json
from mdprop.report.aggregate import REMEDY
from mdprop.runs import Run

Findings = Sequence[tuple[str, str]]
"""(who, what): `mdprop@multi_target, seed 0` and a sentence."""


def read_findings(runs: Sequence[Run]) -> Findings:
    """Those of all runs, in their order. Raises `ResultError` for a file that is missing or malformed."""
    found: list[tuple[str, str]] = []
    for run in runs:
        for branch, findings in read_sealed_json(run.checks, REMEDY).items():
            row = run.method if branch == CLEAN else f"{run.method}@{branch}"
            try:
                found += [(f"{row}, seed {run.seed}", str(finding["text"])) for finding in findings]
            except (AttributeError, KeyError, TypeError):
                raise ResultError(f"{run.checks} is no list of findings: delete it and {REMEDY}") from None
    return found
