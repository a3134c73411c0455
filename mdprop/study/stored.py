"""What a study keeps of each run: small files, in folders like those of `runs`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from mdprop.branches import CLEAN
from mdprop.data.stores.queries import read_queries, write_queries
from mdprop.files import read_sealed_json, sealed_json, write_files
from mdprop.runs import Run
from mdprop.study.plan import Unit, Values

RESULTS = "results"
DESCRIPTION = "run.json"
_COLUMNS = ("set", "branch", "id", "label", "hit")


def stored_run(study: Path, unit: Unit) -> Run:
    """Where the results of a run lie in a study's folder."""
    return Run(unit.method, unit.seed, study / RESULTS / unit.place)


def state(run: Run, wanted: Values) -> str:
    """ "done", "missing", or the settings that have changed since: `key: then -> now`.

    Settings that only one of the two knows do not count: params.yaml gains keys with new versions.
    """
    if not (run.folder / DESCRIPTION).exists():
        return "missing"
    known = describe(run)["settings"]
    changed = [f"{k}: {known[k]} -> {v}" for k, v in wanted.items() if k in known and known[k] != v]
    return ", ".join(changed) or "done"


def describe(run: Run) -> dict[str, Any]:
    """The description that `store` wrote: settings, provenance, processor, seconds."""
    return read_sealed_json(run.folder / DESCRIPTION, "run `mdprop study run`")


def store(run: Run, into: Run, description: dict[str, Any]) -> None:
    """Keep a run's metrics, the hits of its queries, and `description`; all of it or nothing.

    Queries are numbered by their place among the clean ones, which does not depend on what was trained on.
    """
    table = read_queries(run.queries, _COLUMNS)
    table = table.filter(pc.is_valid(table["hit"]))
    clean = table.filter(pc.and_(pc.equal(table["set"], CLEAN), pc.equal(table["branch"], CLEAN)))
    known = np.sort(clean["id"].to_numpy())
    columns = {name: np.asarray(table[name].to_pylist()) for name in _COLUMNS}
    columns["id"] = np.searchsorted(known, columns["id"])
    partial = Run(into.method, into.seed, into.root / ".partial")
    write_queries(partial.queries, [columns])
    shutil.copy(run.metrics, partial.metrics)
    write_files({partial.folder / DESCRIPTION: sealed_json(description)})
    shutil.rmtree(into.folder, ignore_errors=True)
    into.folder.parent.mkdir(parents=True, exist_ok=True)
    partial.folder.rename(into.folder)
    shutil.rmtree(partial.root, ignore_errors=True)
