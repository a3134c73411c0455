from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import pytest

from mdprop.errors import ResultError
from mdprop.report import write_report
from mdprop.report.aggregate import aggregate, to_json
from mdprop.report.confidence import intervals_json
from mdprop.report.intervals import read_intervals
from mdprop.report.terminal import terminal_table
from mdprop.runs import Run
from tests.report.synthetic import THREATS, make_rows, runs_of, write_curves, write_runs

TABLES = {"classes.csv", "corruptions.csv", "recall.csv", "robustness.csv", "table.csv", "training.csv"}
FILES = {"index.html", "intervals.json", "metrics.json", "summary.json"} | TABLES


def report(runs: Sequence[Run], out: str = "report") -> str:
    return write_report(
        out,
        runs,
        THREATS,
        channel_std=[0.25],
        settings={"dataset": {"name": "glyphs"}},
        provenance={"commit": "abc123"},
    )


def test_writes_everything_and_returns_the_table(folder: Path) -> None:
    runs = runs_of(seeds=(0, 1))
    write_runs(runs)
    text = report(runs)
    summary = aggregate(make_rows(seeds=(0, 1)))
    intervals = read_intervals(runs)
    assert text == terminal_table(summary, THREATS, intervals=intervals)
    assert {p.name for p in (folder / "report").iterdir()} == FILES
    assert (folder / "report" / "metrics.json").read_text() == to_json(summary)
    assert (folder / "report" / "intervals.json").read_text() == intervals_json(intervals)
    page = (folder / "report" / "index.html").read_text()
    assert "Recall@1 against standard" in page and "Recall@1 against at" in page


def test_the_same_inputs_give_the_same_bytes(folder: Path) -> None:
    write_runs(runs_of())
    for run in runs_of():
        write_curves(run)
    report(runs_of(), "a")
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 20}):  # a user's own style
        report(runs_of(), "b")
    for name in FILES:
        assert (folder / "a" / name).read_bytes() == (folder / "b" / name).read_bytes(), name


def test_orphan_runs_change_nothing(folder: Path) -> None:
    write_runs(runs_of(seeds=(0, 1)))
    write_runs(runs_of(["mdprop_unadv"]))
    report(runs_of(["standard", "at"]))
    metrics = json.loads((folder / "report" / "metrics.json").read_text())
    assert list(metrics) == ["standard", "at"]
    assert metrics["at"]["clean"]["recall_at_1"]["n"] == 1
    for name in FILES:
        assert "mdprop_unadv" not in (folder / "report" / name).read_text(), name


def test_a_failure_writes_nothing(folder: Path) -> None:
    write_runs(runs_of(["standard", "at", "advprop"]))
    with pytest.raises(ResultError, match=r"mdprop/0/metrics\.json not found"):
        report(runs_of())
    assert not (folder / "report").exists()


def test_a_run_without_queries_is_named_with_the_remedy(folder: Path) -> None:
    write_runs(runs_of())
    Run("at", 0).queries.unlink()
    with pytest.raises(ResultError, match=r"runs/at/0/queries\.parquet not found: run `dvc repro`$"):
        report(runs_of())
    assert not (folder / "report").exists()
