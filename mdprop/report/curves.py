"""The curves of training, as dvclive wrote them."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mdprop.errors import ResultError
from mdprop.files import read_sealed_json
from mdprop.report.aggregate import REMEDY
from mdprop.runs import Run

METRICS = {"loss": "train/loss", "validation_recall_at_1": "validation/recall_at_1"}
"""Of each curve, what dvclive calls it."""

Curve = Sequence[tuple[int, float]]  # epoch, value
Curves = Mapping[Run, Mapping[str, Curve]]  # run -> key of METRICS -> curve


def read_curves(runs: Iterable[Run]) -> Curves:
    """The curves that the runs have, without values that are not finite.

    Raises `ResultError` where a file is not the table of a curve, or not the one that model.json names.
    """
    found: dict[Run, dict[str, Curve]] = {}
    for run in runs:
        paths = {key: run.live / "plots" / "metrics" / f"{name}.tsv" for key, name in METRICS.items()}
        named = _named(run)
        wanted = {key: path for key, path in paths.items() if path in named or path.exists()}
        found[run] = {key: _read(path, named.get(path)) for key, path in wanted.items()}
    return found


def _named(run: Run) -> dict[Path, str]:
    """The curves that the run's training wrote, and the SHA-256 of each."""
    model = run.folder / "model.json"
    curves = read_sealed_json(model, REMEDY).get("curves", {}) if model.exists() else {}
    return {run.live / name: digest for name, digest in curves.items()}


def _read(path: Path, digest: str | None) -> Curve:
    """The columns `step` and the file's own name of a dvclive table; digest: that it must have, if known."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ResultError(f"{path} cannot be read ({error.strerror}): {REMEDY}") from None
    if digest not in (None, hashlib.sha256(content).hexdigest()):
        raise ResultError(f"{path} is damaged, or of another training: delete it and {REMEDY}")
    try:
        table = csv.DictReader(content.decode().splitlines(), delimiter="\t")
        rows = [(int(row["step"]), float(row[path.stem])) for row in table]
    except (KeyError, TypeError, ValueError) as error:
        what = f"{path} is no table of step and {path.stem} ({error!r})"
        raise ResultError(f"{what}: delete it and {REMEDY}") from None
    return [(epoch, value) for epoch, value in rows if math.isfinite(value)]
