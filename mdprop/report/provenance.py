"""What made the runs of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mdprop.errors import ResultError
from mdprop.files import read_sealed_json
from mdprop.report.aggregate import REMEDY
from mdprop.runs import Run


def read_provenance(runs: Sequence[Run]) -> dict[str, str]:
    """What the model.json of these runs say made them; where they differ, each with its runs.

    Raises `ResultError` for a file that is missing, damaged or of another version.
    """
    found: dict[str, dict[str, list[str]]] = {}
    for run in runs:
        path = run.folder / "model.json"
        provenance = read_sealed_json(path, REMEDY).get("provenance")
        if not isinstance(provenance, Mapping):
            raise ResultError(f"{path} does not say what made it: delete it and {REMEDY}")
        for key, value in provenance.items():
            found.setdefault(key, {}).setdefault(str(value), []).append(str(run))
    return {key: _joined(values) for key, values in found.items()}


def _joined(values: Mapping[str, Sequence[str]]) -> str:
    if len(values) == 1:
        return next(iter(values))
    return "; ".join(f"{value} ({', '.join(runs)})" for value, runs in values.items())
