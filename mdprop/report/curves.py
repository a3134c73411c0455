"""The curves of training, as dvclive wrote them."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mdprop.errors import ResultError
from mdprop.report.aggregate import REMEDY
from mdprop.runs import Run

METRICS = {"loss": "train/loss", "validation_recall_at_1": "validation/recall_at_1"}
"""Of each curve, what dvclive calls it."""

Curve = Sequence[tuple[int, float]]  # epoch, value
Curves = Mapping[Run, Mapping[str, Curve]]  # run -> key of METRICS -> curve


def read_curves(runs: Iterable[Run]) -> Curves:
    """The curves that the runs have, without values that are not finite.

    Raises `ResultError` where a file is not the table of a curve.
    """
    found: dict[Run, dict[str, Curve]] = {}
    for run in runs:
        paths = {key: run.live / "plots" / "metrics" / f"{name}.tsv" for key, name in METRICS.items()}
        found[run] = {key: _read(path) for key, path in paths.items() if path.exists()}
    return found


def _read(path: Path) -> Curve:
    """The columns `step` and the file's own name of a dvclive table."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [(int(r["step"]), float(r[path.stem])) for r in csv.DictReader(file, delimiter="\t")]
    except (KeyError, TypeError, ValueError) as error:
        what = f"{path} is no table of step and {path.stem} ({error!r})"
        raise ResultError(f"{what}: delete it and {REMEDY}") from None
    return [(epoch, value) for epoch, value in rows if math.isfinite(value)]
