from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
import pytest

from mdprop.errors import ResultError
from mdprop.report import write_report
from mdprop.report.aggregate import aggregate, to_json
from mdprop.report.tables import terminal_table
from tests.report.synthetic import EPSILONS, METHODS, make_runs, write_runs

FILES = {
    "index.html",
    "metrics.json",
    "recall.csv",
    "robustness_multi_target.csv",
    "robustness_single_target.csv",
    "table.csv",
}


def report(folder: Path, out: str = "report", **changes: Any) -> str:
    arguments: dict[str, Any] = {
        "methods": METHODS,
        "seeds": [0],
        "epsilons": EPSILONS,
        "units": "pixel",
        "channel_std": [0.25],
        "settings": {"dataset": {"name": "glyphs"}},
        "provenance": {"commit": "abc123"},
    }
    return write_report(folder / out, folder / "runs", **{**arguments, **changes})


def test_writes_everything_and_returns_the_table(tmp_path: Path) -> None:
    write_runs(tmp_path / "runs", seeds=(0, 1))
    text = report(tmp_path, seeds=[0, 1])
    summary = aggregate(make_runs(seeds=(0, 1)))
    assert text == terminal_table(summary, EPSILONS, "pixel")
    assert {p.name for p in (tmp_path / "report").iterdir()} == FILES
    assert (tmp_path / "report" / "metrics.json").read_text() == to_json(summary)


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    write_runs(tmp_path / "runs")
    report(tmp_path, "a")
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 20}):  # a user's own style
        report(tmp_path, "b")
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_orphan_runs_change_nothing(tmp_path: Path) -> None:
    write_runs(tmp_path / "runs", seeds=(0, 1))
    write_runs(tmp_path / "runs", ["mdprop_unadv"])
    report(tmp_path, methods=["standard", "at"])
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert list(metrics) == ["standard", "at"]
    assert metrics["at"]["clean"]["recall_at_1"]["n"] == 1
    for name in FILES:
        assert "mdprop_unadv" not in (tmp_path / "report" / name).read_text(), name


def test_a_failure_writes_nothing(tmp_path: Path) -> None:
    write_runs(tmp_path / "runs", ["standard", "at", "advprop"])
    with pytest.raises(ResultError, match=r"mdprop/0/metrics\.json not found"):
        report(tmp_path)
    assert not (tmp_path / "report").exists()
