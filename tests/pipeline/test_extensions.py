"""A goal and methods of one's own, from a file and a block of params.yaml to the table."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from mdprop.attacks import GOALS
from mdprop.cli import app
from mdprop.models import load_model
from tests.pipeline.conftest import ROOT, Project, set_params

NEW_GOAL = '''
from dataclasses import dataclass

from mdprop.attacks.goals import BaseGoal


@dataclass(frozen=True, kw_only=True)
class Centre(BaseGoal):
    """Towards the mean of the embeddings of T images."""

    def aims(self, labels, rows, count, generator, ranking=None):
        from mdprop.attacks.targets import target_rows

        return target_rows(labels, rows, count, "other_class", generator)

    def objective(self, embeddings, aims, gallery=None):
        return (embeddings - aims.mean(0)).square().sum(-1)

    def measure(self, attacked, clean, aims, gallery=None):
        return {"centre_distance": ((attacked - aims.mean(0)) ** 2).sum(-1)}


CENTRE = Centre(name="centre", label="centre-seeking", many=True)
'''
TWO_RADII = [
    {"goal": "single_target", "share": "1/2", "branch": "near", "epsilon": 0.02},
    {"goal": "single_target", "share": "1/2", "branch": "far", "epsilon": 0.06},
]


@pytest.fixture
def folder(project: Project, tmp_path: Path) -> Path:
    """A folder with the prepared images and parameters for one short epoch."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "prepared").symlink_to(project.path / "data" / "prepared")
    (tmp_path / "params.yaml").write_text((project.path / "params.yaml").read_text())
    set_params(tmp_path / "params.yaml", {"train.epochs": 1, "adversary.queries": 60, "adversary.steps": 2})
    return tmp_path


def run_stages(method: str, *names: str) -> None:
    for name in names:
        stage = importlib.import_module(f"stages.{name}").app
        done = CliRunner().invoke(stage, ["--method", method, "--seed", "0"] if name != "report" else [])
        assert done.exit_code == 0, done.exception or done.output


def test_a_goal_from_a_file_runs_through_training_and_evaluation(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "centre.py").write_text(NEW_GOAL)
    spec = importlib.util.spec_from_file_location("centre", folder / "centre.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "centre", module)
    spec.loader.exec_module(module)
    monkeypatch.setitem(GOALS, "centre", module.CENTRE)
    set_params(
        folder / "params.yaml",
        {
            "methods": {"clean": [], "single_target": [], "multi_target": ["mine"]},
            "recipes": {"mine": [{"goal": "centre", "share": "1/2", "targets": 3}]},
            "adversary.branches": ["clean", "centre"],
            "adversary.sets": {"towards_centres": {"goal": "centre", "epsilon": 0.05}},
        },
    )
    monkeypatch.chdir(folder)
    run_stages("mine", "train", "attack", "embed", "evaluate", "report")
    assert load_model(folder / "runs/mine/0").network.blocks[0].bn.branches.keys() == {"clean", "centre"}
    metrics = json.loads((folder / "report/metrics.json").read_text())
    assert list(metrics) == ["mine", "mine@centre"]
    assert metrics["mine"]["towards_centres"]["centre_distance"]["mean"] > 0
    queries = pq.read_table(folder / "runs/mine/0/queries.parquet").to_pylist()
    own = [q for q in queries if (q["set"], q["branch"]) == ("towards_centres", "clean")]
    mean = sum(q["centre_distance"] for q in own) / len(own)
    assert metrics["mine"]["towards_centres"]["centre_distance"]["mean"] == pytest.approx(mean)
    shown = CliRunner().invoke(app, ["table"])
    assert "centre-" in shown.output and "mine@centre" in shown.output


@pytest.mark.parametrize("processes", [1, 2])
def test_two_slices_of_one_goal_train_in_one_and_in_two_processes(folder: Path, processes: int) -> None:
    set_params(
        folder / "params.yaml",
        {
            "methods": {"clean": [], "single_target": ["two_radii"], "multi_target": []},
            "recipes": {"two_radii": TWO_RADII},
        },
    )
    command = [sys.executable, "-m", "stages.train", "--method", "two_radii", "--seed", "0"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "MDPROP_PROCESSES": str(processes), "MDPROP_DEVICE": "cpu"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    weights = load_file(folder / "runs/two_radii/0/model.safetensors")
    statistics = {b: weights[f"blocks.0.bn.branches.{b}.running_mean"] for b in ("clean", "near", "far")}
    assert (statistics["near"] != statistics["far"]).any()
    batches = {int(weights[f"blocks.0.bn.branches.{b}.num_batches_tracked"]) for b in statistics}
    assert len(batches) == 1 and batches.pop() > 10
    out = folder / "near.safetensors"
    exported = CliRunner().invoke(
        app, ["export", str(folder / "runs/two_radii/0"), str(out), "--branch", "near"]
    )
    assert exported.exit_code == 0
    assert (load_file(out)["blocks.0.bn.running_mean"] == statistics["near"]).all()
