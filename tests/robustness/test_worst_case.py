from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mdprop.attacks import Threat
from mdprop.data.stores.queries import read_queries, write_queries
from mdprop.errors import ResultError
from mdprop.robustness.worst_case import WORST_CASE, counts, worst_case_of

Part = dict[str, NDArray[Any]]


def part(name: str, hits: dict[int, bool], branch: str = "clean") -> Part:
    """One input set: whether each query id is right. The label of an image is its id modulo 3."""
    ids = np.array(list(hits), np.int64)
    where = {"set": np.full(len(ids), name), "branch": np.full(len(ids), branch)}
    return {**where, "id": ids, "label": ids % 3, "hit": np.array(list(hits.values()), bool)}


PARTS = [
    part("clean", dict.fromkeys(range(10), False)),
    part("near", {8: True, 3: True, 5: False, 4: True}),
    part("far", {3: True, 4: False, 5: False, 9: True, 8: True}),
    part("friendly", dict.fromkeys(range(10), False)),
    part("near", dict.fromkeys(range(10), True), "multi_target"),
    part("far", {0: True, 1: False}, "multi_target"),
]


def test_a_query_is_right_where_it_is_under_every_attack() -> None:
    columns, metrics = worst_case_of(PARTS, ["near", "far"])
    assert columns["id"].tolist() == [3, 4, 5, 8]
    assert columns["hit"].tolist() == [True, False, False, True]
    assert columns["label"].tolist() == [0, 1, 2, 2]
    assert set(columns["set"]) == {WORST_CASE} and set(columns["branch"]) == {"clean"}
    assert metrics == {"recall_at_1": 0.5, "queries": 4}


def test_each_branch_by_itself() -> None:
    columns, metrics = worst_case_of(PARTS, ["near", "far"], "multi_target")
    assert (columns["id"].tolist(), columns["hit"].tolist()) == ([0, 1], [True, False])
    assert set(columns["branch"]) == {"multi_target"}
    assert metrics == {"recall_at_1": 0.5, "queries": 2}


def test_one_attack_is_its_own_worst_case() -> None:
    _, metrics = worst_case_of(PARTS, ["near", "near"])
    assert metrics == {"recall_at_1": 0.75, "queries": 4}


def test_never_better_than_any_attack_and_as_a_loop_counts() -> None:
    rng = np.random.default_rng(0)
    sets = {
        name: {int(i): bool(rng.random() < 0.7) for i in rng.permutation(60)[:45]} for name in ("a", "b", "c")
    }
    columns, metrics = worst_case_of([part(name, hits) for name, hits in sets.items()], list(sets))
    common = [i for i in range(60) if all(i in hits for hits in sets.values())]
    right = [all(hits[i] for hits in sets.values()) for i in common]
    assert (columns["id"].tolist(), columns["hit"].tolist()) == (common, right)
    assert metrics["recall_at_1"] == pytest.approx(sum(right) / len(right))
    assert all(metrics["recall_at_1"] <= np.mean([hits[i] for i in common]) for hits in sets.values())


def test_columns_as_they_are_read_and_written(tmp_path: Path) -> None:
    write_queries(tmp_path / "queries.parquet", PARTS)
    table = read_queries(tmp_path / "queries.parquet")
    read = {name: np.asarray(table[name]) for name in table.column_names}
    columns, metrics = worst_case_of([read], ["near", "far"])
    assert metrics == worst_case_of(PARTS, ["near", "far"])[1]
    write_queries(tmp_path / "more.parquet", [*PARTS, columns])
    assert read_queries(tmp_path / "more.parquet")["set"].to_pylist()[-4:] == [WORST_CASE] * 4


def test_refuses() -> None:
    with pytest.raises(ValueError, match="a worst case needs at least one attack"):
        worst_case_of(PARTS, [])
    with pytest.raises(ResultError, match="no queries of the set unknown through the branch clean"):
        worst_case_of(PARTS, ["near", "unknown"])
    with pytest.raises(ResultError, match="no queries of the set near through the branch single_target"):
        worst_case_of(PARTS, ["near"], "single_target")
    apart = [part("near", {1: True}), part("far", {2: True})]
    with pytest.raises(ResultError, match="no query was attacked by all of near, far"):
        worst_case_of(apart, ["near", "far"])


@pytest.mark.parametrize(
    ("attack", "expected"),
    [
        ({"goal": "untargeted"}, True),
        ({"goal": "untargeted", "source": "at/0"}, True),
        ({"goal": "untargeted", "optimizer": "noise"}, True),
        ({"goal": "untargeted", "epsilon": 0.5}, False),
        ({"goal": "untargeted", "epsilon": 0.5, "norm": "l2"}, True),
        ({"goal": "untargeted", "epsilon": 0.5, "units": "normalized"}, True),
        ({"goal": "unadversarial"}, False),
        ({"goal": "ca_plus"}, False),
    ],
)
def test_which_attacks_count(attack: dict[str, Any], expected: bool) -> None:
    assert counts(Threat(**{"epsilon": 0.1, **attack})) is expected
