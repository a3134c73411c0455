"""The worst case over attacks: a query counts only where it is right under every one of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mdprop.attacks.threat import Threat
from mdprop.branches import CLEAN
from mdprop.errors import ResultError
from mdprop.robustness.checks.strength import GREY
from mdprop.runs import WORST_CASE
from mdprop.statistics import worst_case

if TYPE_CHECKING:
    from mdprop.robustness.evaluation import Columns, Metrics


def counts(threat: Threat) -> bool:
    """Whether an attack counts: it harms, it moves the query, and it cannot make any image plain grey."""
    boundless = threat.norm == "linf" and threat.units == "pixel" and threat.epsilon >= GREY
    return threat.wants.harms and threat.wants.perturbs == "query" and not boundless


def worst_case_of(
    parts: Sequence[Mapping[str, NDArray[Any]]], attacks: Collection[str], branch: str = CLEAN
) -> tuple[Columns, Metrics]:
    """The worst case over some input sets of one run that answers through `branch`.

    parts: the columns set, branch, id, label, hit of each set, as `evaluate_run` returns them, or of
        several together; other sets and branches are left out.
    attacks: names of the sets whose goal harms, at least one.

    Returns the columns set, branch, id, label, hit [Q] of the set `worst_case`, in the order of ids, and
    {"recall_at_1", "queries"}. Its queries are those that all these sets have.

    Raises `ResultError` where a set is missing, or no query is in all of them; `ValueError` without attacks.
    """
    if not attacks:
        raise ValueError("a worst case needs at least one attack")
    found = [_rows(parts, name, branch) for name in dict.fromkeys(attacks)]
    ids = reduce(np.intersect1d, [columns["id"] for columns in found])
    if not len(ids):
        raise ResultError(f"no query was attacked by all of {', '.join(attacks)}: there is no worst case")
    rows = [np.intersect1d(columns["id"], ids, return_indices=True)[1] for columns in found]
    hits = worst_case(np.stack([columns["hit"][at] for columns, at in zip(found, rows, strict=True)]))
    columns = {
        "set": np.full(len(ids), WORST_CASE),
        "branch": np.full(len(ids), branch),
        "id": ids,
        "label": found[0]["label"][rows[0]],
        "hit": hits,
    }
    return columns, {"recall_at_1": float(hits.mean()), "queries": len(ids)}


def _rows(parts: Sequence[Mapping[str, NDArray[Any]]], name: str, branch: str) -> Columns:
    """id, label and hit of the queries of one set and branch."""
    masks = [(part, (part["set"] == name) & (part["branch"] == branch)) for part in parts]
    chosen = [(part, rows) for part, rows in masks if rows.any()]
    if not chosen:
        raise ResultError(f"there are no queries of the set {name} through the branch {branch}")
    return {key: np.concatenate([part[key][rows] for part, rows in chosen]) for key in ("id", "label", "hit")}
