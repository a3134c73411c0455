"""The plots of dvc.yaml, drawn by `dvc plots show` from the files of a report."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from mdprop.report import write_report
from tests.report.synthetic import METHODS, THREATS, runs_of, write_curves, write_runs

PROJECT = Path(__file__).parents[2]
PLOTS = YAML(typ="safe").load((PROJECT / "dvc.yaml").read_text())["plots"]


def shown_plots(folder: Path, methods: Sequence[str], *, curves: bool = True) -> dict[str, Any]:
    """The Vega-Lite specification of each plot, by name, of a project with these methods."""
    runs = runs_of(methods, (0, 1))
    write_runs(runs, {"mdprop": ["clean", "multi_target"]})
    for run in runs if curves else []:
        write_curves(run, every=3)
    write_report("report", runs, THREATS, channel_std=[0.25], settings={}, provenance={})
    shutil.copytree(PROJECT / ".dvc" / "plots", folder / ".dvc" / "plots")
    (folder / ".dvc" / "config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    with (folder / "dvc.yaml").open("w") as file:
        YAML().dump({"plots": PLOTS}, file)
    done = subprocess.run(
        [Path(sys.executable).parent / "dvc", "plots", "show", "-o", "plots"],
        env={key: value for key, value in os.environ.items() if not key.startswith("DVC")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr, done.stderr
    page = (folder / "plots" / "index.html").read_text()
    found = re.findall(r"var spec = (\{.*?\});\s*vegaEmbed\('#([^']*)'", page, re.DOTALL)
    return {name: json.loads(spec) for spec, name in found}


def fields(spec: Any) -> set[str]:
    """The columns that a specification reads."""
    if isinstance(spec, list):
        return {field for part in spec for field in fields(part)}
    if not isinstance(spec, dict):
        return set()
    own = {spec["field"]} if isinstance(spec.get("field"), str) else set()
    return own.union(*(fields(part) for key, part in spec.items() if key != "data"))


@pytest.mark.parametrize("methods", [METHODS, ("mdprop",)], ids=["all", "one"])
def test_every_plot_shows_the_methods_that_there_are(folder: Path, methods: tuple[str, ...]) -> None:
    plots = shown_plots(folder, methods)
    assert set(plots) == {name for plot in PLOTS for name in plot}
    for name, spec in plots.items():
        assert "DVC_METRIC" not in json.dumps(spec), name
        rows = spec["data"]["values"]
        assert fields(spec) - {"seed", "order"} <= set(rows[0]), name  # seed: of training alone
        expected = {*methods} if "epoch" in rows[0] else {*methods, "mdprop@multi_target"}
        assert {row["method"] for row in rows} == expected, name


def test_attacks_are_panels_in_the_order_of_the_table(folder: Path) -> None:
    spec = shown_plots(folder, ["standard"])["robustness"]
    assert spec["facet"]["field"] == "attack"
    attacks = dict.fromkeys(row["attack"] for row in spec["data"]["values"])
    assert list(attacks) == ["single-targeted", "multi-targeted", "untargeted", "unadversarial"]


def test_without_curves_the_plots_of_training_are_empty(folder: Path) -> None:
    plots = shown_plots(folder, ["standard"], curves=False)
    assert {name for name, spec in plots.items() if spec} == {"recall-at-k", "robustness"}
