from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from mdprop.data.stores.queries import write_queries
from mdprop.errors import ResultError
from mdprop.report.intervals import comparisons, read_hits, read_intervals, recall_intervals
from mdprop.runs import Run
from mdprop.seals import BLANK, seal
from mdprop.statistics import (
    difference_of_queries,
    difference_of_seeds,
    mean_of_seeds,
    ratio_of_queries,
    ratio_of_seeds,
    share_of_queries,
)

LABELS = np.arange(300) // 10

Columns = dict[str, NDArray[Any]]


def part(name: str, hits: Any, ids: Any = None, branch: str = "clean") -> Columns:
    ids = np.arange(len(hits)) if ids is None else np.asarray(ids)
    where = {"set": np.full(len(ids), name), "branch": np.full(len(ids), branch)}
    found = {"hit": np.asarray(hits, bool), "rank": np.where(hits, 1, 5)}
    return {**where, "id": ids, "label": LABELS[ids], **found}


def draw(mean: float, *key: int) -> NDArray[np.bool_]:
    return np.random.default_rng(key).random(300) < mean


def write(root: Path, method: str, seed: int, *parts: Columns) -> Run:
    run = Run(method, seed, root)
    write_queries(run.queries, parts)
    return run


def test_one_seed_is_judged_by_its_queries(tmp_path: Path) -> None:
    clean, attacked = draw(0.9, 0), draw(0.3, 1)
    run = write(tmp_path, "at", 0, part("clean", clean), part("near", attacked))
    found = recall_intervals(read_hits([run]))
    assert found == {
        "at": {"clean": share_of_queries(clean, LABELS), "near": share_of_queries(attacked, LABELS)}
    }


def test_several_seeds_are_judged_by_their_means(tmp_path: Path) -> None:
    hits = [draw(0.5, seed) for seed in range(3)]
    runs = [write(tmp_path, "at", seed, part("near", hits[seed])) for seed in range(3)]
    found = recall_intervals(read_hits(runs))["at"]["near"]
    assert found == mean_of_seeds([h.mean() for h in hits], 0, 1)
    assert found.value == pytest.approx(np.mean(hits))


def test_seeds_that_all_find_nothing_are_judged_by_their_queries(tmp_path: Path) -> None:
    runs = [write(tmp_path, "standard", seed, part("near", np.zeros(300))) for seed in range(3)]
    found = recall_intervals(read_hits(runs))["standard"]["near"]
    assert found == share_of_queries(np.zeros(300), LABELS)
    assert found.high > 0.05


def test_rows_are_methods_and_branches_in_the_order_of_the_files(tmp_path: Path) -> None:
    parts = [
        part(name, draw(0.5, i), branch=branch)
        for i, (branch, name) in enumerate(
            [("clean", "clean"), ("clean", "near"), ("multi_target", "clean"), ("multi_target", "near")]
        )
    ]
    runs = [write(tmp_path, "mdprop", 0, *parts), write(tmp_path, "at", 0, parts[0])]
    results = read_hits(runs)
    assert {row: list(sets) for row, sets in results.items()} == {
        "mdprop": ["clean", "near"],
        "mdprop@multi_target": ["clean", "near"],
        "at": ["clean"],
    }
    assert list(results) == ["mdprop", "mdprop@multi_target", "at"]
    read = results["mdprop@multi_target"]["near"][0]
    assert np.array_equal(read.hits, parts[3]["hit"]) and np.array_equal(read.ids, parts[3]["id"])


def test_one_seed_against_another_method_query_by_query(tmp_path: Path) -> None:
    """The methods have different queries of the attacked set, in different orders: what both have counts."""
    ours, theirs = draw(0.6, 0), draw(0.2, 1)
    a, b = np.arange(250), np.random.default_rng(0).permutation(np.arange(50, 300))
    runs = [
        write(tmp_path, "standard", 0, part("clean", theirs), part("near", theirs[b], b)),
        write(tmp_path, "at", 0, part("clean", ours), part("near", ours[a], a)),
    ]
    found = comparisons(read_hits(runs), "standard")
    assert list(found) == ["at"]
    both = slice(50, 250)
    near = found["at"]["near"]
    assert near.difference == difference_of_queries(ours[both], theirs[both], LABELS[both])
    assert near.ratio == ratio_of_queries(ours[both], theirs[both], LABELS[both])
    assert near.differs
    assert found["at"]["clean"].difference == difference_of_queries(ours, theirs, LABELS)
    assert found["at"]["clean"].ratio is None


def test_several_seeds_against_another_method_seed_by_seed(tmp_path: Path) -> None:
    ours = {seed: draw(0.6, 0, seed) for seed in (0, 1, 2, 3)}
    theirs = {seed: draw(0.3, 1, seed) for seed in (1, 2, 3, 4)}
    runs = [write(tmp_path, "mdprop", seed, part("near", hits)) for seed, hits in ours.items()]
    runs += [write(tmp_path, "at", seed, part("near", hits)) for seed, hits in theirs.items()]
    found = read_intervals(runs).against["at"]["mdprop"]["near"]
    means = [ours[s].mean() for s in (1, 2, 3)], [theirs[s].mean() for s in (1, 2, 3)]
    assert found.difference == difference_of_seeds(*means)
    assert found.ratio == ratio_of_seeds(*means)
    assert found.differs


def test_seeds_with_one_difference_are_compared_query_by_query(tmp_path: Path) -> None:
    hits = draw(0.5, 0)
    runs = [write(tmp_path, m, seed, part("near", hits)) for m in ("standard", "at") for seed in (0, 1)]
    found = comparisons(read_hits(runs), "standard")["at"]["near"]
    assert found.difference.value == 0
    assert found.difference.low < -0.05 and found.difference.high > 0.05
    assert found.ratio is not None and found.ratio.value == 1
    assert not found.differs


def test_a_reference_that_finds_nothing_has_no_ratio(tmp_path: Path) -> None:
    ours = draw(0.5, 0)
    runs = [
        write(tmp_path, "standard", 0, part("near", np.zeros(300))),
        write(tmp_path, "at", 0, part("near", ours)),
    ]
    found = comparisons(read_hits(runs), "standard")["at"]["near"]
    assert found.ratio is None
    assert found.differs and found.difference.value == pytest.approx(ours.mean())


def test_nothing_in_common_is_not_compared(tmp_path: Path) -> None:
    hits = draw(0.5, 0)
    runs = [
        write(tmp_path, "standard", 0, part("near", hits[:100]), part("far", hits[:100])),
        write(tmp_path, "at", 0, part("near", hits[100:], np.arange(100, 300)), part("other", hits)),
        write(tmp_path, "advprop", 1, part("far", hits)),
    ]
    assert comparisons(read_hits(runs), "standard") == {"at": {}, "advprop": {}}


def test_references_without_a_row_are_left_out(tmp_path: Path) -> None:
    run = write(tmp_path, "mdprop", 0, part("clean", draw(0.5, 0)))
    assert read_intervals([run]).against == {}
    named = read_intervals([run, write(tmp_path, "mine", 0, part("clean", draw(0.9, 1)))], ["mine"])
    assert list(named.against) == ["mine"]
    assert named.against["mine"]["mdprop"]["clean"].differs
    assert named.recall["mdprop"]["clean"] == share_of_queries(draw(0.5, 0), LABELS)


def test_sets_that_have_measures_of_their_goal_only_are_left_out(tmp_path: Path) -> None:
    goal_only = part("raised", np.zeros(20))
    del goal_only["hit"], goal_only["rank"]
    run = write(tmp_path, "at", 0, part("clean", draw(0.5, 0)), goal_only)
    assert list(read_hits([run])["at"]) == ["clean"]


def test_files_that_are_missing_or_lack_a_column(tmp_path: Path) -> None:
    run = Run("at", 0, tmp_path)
    with pytest.raises(ResultError, match=r"at/0/queries\.parquet not found: run `dvc repro`"):
        read_intervals([run])
    write(tmp_path, "at", 0, part("clean", draw(0.5, 0)))
    without = pq.read_table(run.queries).drop_columns(["hit"]).replace_schema_metadata({"seal": BLANK})
    pq.write_table(without, run.queries)
    seal(run.queries)
    with pytest.raises(
        ResultError, match=r"has no column hit, it is of another version: delete it and run `dvc repro`"
    ):
        read_intervals([run])
