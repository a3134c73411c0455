"""The stage commands: help, and one line for a user's mistake."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mdprop.data.stores.embeddings import read_embeddings
from tests.pipeline.conftest import ROOT, set_params

STAGES = ("prepare", "preflight", "train", "attack", "embed", "evaluate", "report")


def run(cwd, stage, *arguments):
    return subprocess.run(
        [sys.executable, "-m", f"stages.{stage}", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )


def assert_one_line(done, *parts):
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if "preparing" not in line]
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    for part in parts:
        assert part in lines[0]


@pytest.fixture
def work(tmp_path):
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


def make_folder(root: Path, sizes=(3,) * 6) -> Path:
    rng = np.random.default_rng(0)
    for number, size in enumerate(sizes):
        (root / f"class{number}").mkdir(parents=True)
        for i in range(size):
            pixels = rng.integers(0, 255, (20, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / f"class{number}" / f"{i}.png")
    return root


def use_folder(work, **values):
    settings = {"root": "images", "resize": 16, "image_size": 16, **values}
    set_params(
        work / "params.yaml",
        {"dataset.name": "folder", **{f"datasets.folder.{key}": value for key, value in settings.items()}},
    )


@pytest.mark.parametrize("stage", STAGES)
def test_help_names_the_stage(stage):
    done = run(ROOT, stage, "--help")
    assert done.returncode == 0
    assert f"stages.{stage}" in done.stdout or stage in done.stdout


@pytest.mark.parametrize("stage", STAGES)
def test_a_misspelt_key(work, stage):
    params = work / "params.yaml"
    params.write_text(params.read_text().replace("  batch_size:", "  batchsize:"))
    arguments = () if stage in ("prepare", "preflight", "report") else ("--method", "standard", "--seed", "0")
    assert_one_line(run(work, stage, *arguments), "params.yaml", "train.batchsize", "batch_size")


def test_a_wrong_type(work):
    set_params(work / "params.yaml", {"train.epochs": "many"})
    assert_one_line(
        run(work, "prepare"),
        "params.yaml",
        "train.epochs",
        "many",
        "a whole number from 0 to 100000 is needed",
    )


def test_an_unknown_method(work):
    set_params(work / "params.yaml", {"methods.clean": ["standrd"]})
    assert_one_line(run(work, "prepare"), "standrd", "standard, at, advprop, mdprop")
    assert_one_line(run(work, "train", "--method", "standrd", "--seed", "0"), "standrd", "mdprop_unadv")


def test_a_missing_folder(work):
    use_folder(work)
    assert_one_line(run(work, "prepare"), "images", "datasets.folder.root")
    assert not (work / "data").exists() or not list((work / "data").rglob("*.arrow"))


def test_a_class_with_one_image(work):
    make_folder(work / "images", sizes=(3, 1, 3, 3))
    use_folder(work)
    assert_one_line(run(work, "prepare"), "class1", "2 or more")
    assert not list(work.rglob("*.arrow"))


def test_a_corrupt_image(work):
    make_folder(work / "images")
    (work / "images" / "class2" / "1.png").write_bytes(b"\x89PNG no image")
    use_folder(work)
    assert_one_line(run(work, "prepare"), "class2/1.png")
    assert not list(work.rglob("*.arrow")) and not list((work / "data").rglob("*"))[1:]


def test_a_batch_needs_enough_classes(work):
    make_folder(work / "images")
    use_folder(work)
    assert run(work, "prepare").returncode == 0
    done = run(work, "train", "--method", "standard", "--seed", "0")
    assert_one_line(done, "train.batch_size = 64", "32 classes", "train.images_per_class")


@pytest.mark.parametrize("key, value, part", [
    ("model.backbone", "conv5", "conv4"),
    ("loss.name", "triplett", "multi_similarity"),
    ("loss.options", {"margn": 0.1}, "margin"),
])  # fmt: skip
def test_what_training_does_not_know(work, key, value, part):
    make_folder(work / "images")
    use_folder(work)
    set_params(work / "params.yaml", {key: value, "train.batch_size": 6, "attack.targets": 1})
    assert run(work, "prepare").returncode == 0
    done = run(work, "train", "--method", "standard", "--seed", "0")
    assert_one_line(done, key, part)
    assert not (work / "runs").exists() and not (work / "live").exists()


@pytest.mark.parametrize("stage", ["train", "attack", "embed", "evaluate"])
def test_what_came_before_is_missing(work, stage):
    done = run(work, stage, "--method", "standard", "--seed", "0")
    first = "data/prepared/glyphs" if stage in ("train", "embed") else "standard/0"
    assert_one_line(done, first)


def test_report_without_runs(work):
    assert_one_line(run(work, "report"), "manifest.json")


def test_an_unknown_device(work, monkeypatch):
    make_folder(work / "images")
    use_folder(work)
    set_params(work / "params.yaml", {"train.batch_size": 6, "attack.targets": 1})
    assert run(work, "prepare").returncode == 0
    done = subprocess.run(
        [sys.executable, "-m", "stages.train", "--method", "standard", "--seed", "0"],
        cwd=work,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "MDPROP_DEVICE": "abacus"},
    )
    assert_one_line(done, "MDPROP_DEVICE=abacus")


def make_inshop(root: Path) -> Path:
    """The In-Shop layout with noisy colours: 6 classes to train on, 4 as queries and gallery."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(10):
        colour = rng.integers(0, 255, 3)
        for index in range(4):
            status = "train" if number < 6 else ("query", "gallery")[index % 2]
            path = f"img/item_{number}/{index}.jpg"
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            pixels = (colour + rng.normal(0, 20, (20, 24, 3))).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / path)
            rows.append(f"{path} id_{number:08} {status}")
    lines = [str(len(rows)), "image_name item_id evaluation_status", *rows]
    (root / "list_eval_partition.txt").write_text("\n".join(lines) + "\n")
    return root


def test_queries_and_gallery_from_images_to_metrics(work):
    make_inshop(work / "images")
    small = {"root": "images", "check_counts": False, "resize": 16, "image_size": 16}
    changes = {f"datasets.inshop.{key}": value for key, value in small.items()}
    changes |= {"dataset.name": "inshop", "train.epochs": 1, "train.batch_size": 8, "evaluate.ks": [1, 10]}
    set_params(
        work / "params.yaml", {**changes, "attack.targets": 2, "adversary.steps": 1, "adversary.queries": 0}
    )
    options = ("--method", "mdprop", "--seed", "0")
    for stage in ("prepare", "train", "attack", "embed", "evaluate"):
        done = run(work, stage, *(() if stage == "prepare" else options))
        assert done.returncode == 0, done.stderr
    run_folder = work / "runs" / "mdprop" / "0"
    sizes = {
        name: len(read_embeddings(run_folder / "embeddings" / f"{name}.parquet")[0])
        for name in ("clean", "gallery", "multi_target_middle")
    }
    assert sizes == {"clean": 8, "gallery": 8, "multi_target_middle": 8}
    ids = [read_embeddings(run_folder / "embeddings" / f"{name}.parquet")[0] for name in ("clean", "gallery")]
    assert not set(ids[0]) & set(ids[1])
    metrics = json.loads((run_folder / "metrics.json").read_text())
    assert metrics["clean"]["queries"] == 8
    assert 0 <= metrics["clean"]["recall_at_1"] <= metrics["clean"]["recall_at_10"] == 1
