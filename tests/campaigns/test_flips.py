"""One bit of a file is flipped, any of them: whoever reads the file says so in one line.

`MDPROP_FLIPS` flips of each kind of file (a few by default), drawn by `MDPROP_SEED`.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from mdprop.data.stores.adversarial import (
    Attacked,
    outcomes_file,
    read_adversarial,
    read_outcomes,
    write_adversarial,
)
from mdprop.data.stores.embeddings import read_embeddings, write_embeddings
from mdprop.data.stores.images import ImageStore
from mdprop.data.stores.queries import read_queries, write_queries
from mdprop.errors import MDPropError
from mdprop.files import read_sealed_json, sealed_json, write_files
from mdprop.models import build_model, load_model, save_model
from mdprop.report.aggregate import collect
from mdprop.report.confidence import Intervals, intervals_json, load_intervals
from mdprop.report.curves import read_curves
from mdprop.report.findings import read_findings
from mdprop.runs import Run
from mdprop.seals import sealed_as
from mdprop.statistics import Interval
from mdprop.training import curve_digests
from tests.helpers import small_store

FLIPS = int(os.environ.get("MDPROP_FLIPS", "40"))
SEED = int(os.environ.get("MDPROP_SEED", "0"))


class Kind(NamedTuple):
    """A file, and what the stages that read it do with it."""

    file: Path
    read: Callable[[], object]


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kind]:
    folder = tmp_path_factory.mktemp("flips")
    return _prepared(folder) | _trained(folder) | _attacked(folder) | _evaluated(folder)


def _prepared(folder: Path) -> dict[str, Kind]:
    data = folder / "prepared"
    data.mkdir()
    splits = ("train", "val", "test", "gallery")
    for seed, split in enumerate(splits):
        small_store(data / f"{split}.arrow", classes=2, seed=seed)
    manifest = data / "manifest.json"
    digests = {split: {"images": 6, "digest": sealed_as(data / f"{split}.arrow")} for split in splits}
    write_files({manifest: sealed_json({"name": "noise", "splits": digests})})
    stores = {s: Kind(data / f"{s}.arrow", lambda s=s: ImageStore(data / f"{s}.arrow")) for s in splits}
    return {**stores, "manifest": Kind(manifest, lambda: ImageStore(data / "test.arrow"))}


def _trained(folder: Path) -> dict[str, Kind]:
    run = Run("at", 0, folder)
    network = build_model("conv4", 6, branches=("clean", "single_target"), mean=[0.5], std=[0.25])
    curve = folder / run.live / "plots" / "metrics" / "train" / "loss.tsv"
    curve.parent.mkdir(parents=True)
    curve.write_text("step\tloss\n1\t0.75\n2\t0.5\n")
    details = {"seed": 0, "curves": curve_digests(folder / run.live)}
    save_model(network, run.folder, backbone="conv4", embedding_dim=6, details=details)
    weights = run.folder / "model.safetensors"
    return {
        "weights": Kind(weights, lambda: load_model(run.folder)),
        "model": Kind(run.folder / "model.json", lambda: load_model(run.folder)),
        "model, branches": Kind(run.folder / "model.json", lambda: run.answering(["clean"])),
        "curve": Kind(curve, lambda: _curves(folder, run)),
    }


def _curves(folder: Path, run: Run) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # where curves lie in `live`
        return read_curves([run])


def _attacked(folder: Path) -> dict[str, Kind]:
    path = folder / "adversarial" / "set.arrow"
    ids, numbers = torch.arange(6), torch.rand(4, 6)
    write_adversarial(
        path,
        [Attacked(ids, ids // 2, torch.rand(6, 1, 5, 5), *numbers, ids[None] + 1, ids > 3, ids < 2)],
        {"goal": "single_target", "epsilon": 0.05},
    )
    embeddings = folder / "embeddings" / "set.parquet"
    values = np.random.default_rng(0).random((6, 4), np.float32)
    write_embeddings(embeddings, [(np.arange(6), np.arange(6) // 2, values)])
    return {
        "set": Kind(path, lambda: list(read_adversarial(path))),
        "outcomes": Kind(outcomes_file(path), lambda: read_outcomes(path)),
        "embeddings": Kind(embeddings, lambda: read_embeddings(embeddings)),
    }


def _evaluated(folder: Path) -> dict[str, Kind]:
    run = Run("standard", 1, folder)
    clean = {
        "set": np.full(6, "clean"),
        "branch": np.full(6, "clean"),
        "id": np.arange(6),
        "label": np.arange(6),
    }
    write_queries(run.queries, [{**clean, "hit": np.arange(6) > 2}])
    intervals = folder / "intervals.json"
    metrics = {"clean": {"recall_at_1": 0.5, "queries": 6}}
    write_files(
        {
            run.metrics: sealed_json(metrics),
            run.checks: sealed_json({"clean": [{"check": "a", "sets": ["b"], "text": "c", "numbers": {}}]}),
            intervals: intervals_json(Intervals({"at": {"clean": Interval(0.5, 0.4, 0.6)}})),
        }
    )
    return {
        "queries": Kind(run.queries, lambda: read_queries(run.queries)),
        "metrics": Kind(run.metrics, lambda: collect([run])),
        "checks": Kind(run.checks, lambda: read_findings([run])),
        "intervals": Kind(intervals, lambda: load_intervals(intervals, {})),
        "any JSON": Kind(run.metrics, lambda: read_sealed_json(run.metrics, "run again")),
    }


NAMES = (
    *("train", "val", "test", "gallery", "manifest"),
    *("weights", "model", "model, branches", "curve"),
    *("set", "outcomes", "embeddings"),
    *("queries", "metrics", "checks", "intervals", "any JSON"),
)


def test_every_kind_is_tried(kinds: dict[str, Kind]) -> None:
    assert set(NAMES) == set(kinds)


@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_bit_is_one_line(
    kinds: dict[str, Kind], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kind, draw = kinds[name], random.Random(f"{SEED} {name}")
    whole = kind.file.read_bytes()
    bits = [0, 8 * len(whole) - 1, *(draw.randrange(8 * len(whole)) for _ in range(FLIPS))]
    passed = []
    try:
        for bit in bits:
            changed = bytearray(whole)
            changed[bit // 8] ^= 1 << bit % 8
            kind.file.write_bytes(changed)
            try:
                kind.read()
                passed.append(bit)
            except MDPropError as error:
                text = str(error)
                assert kind.file.name in text and "\n" not in text
    finally:
        kind.file.write_bytes(whole)
    kind.read()
    with capsys.disabled():
        print(f"\nflips of {name}, seed {SEED}: {len(bits)} tried, {len(bits) - len(passed)} noticed", end="")
    assert not passed


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_cut_longer_or_of_zeros_is_one_line(kinds: dict[str, Kind], name: str) -> None:
    kind = kinds[name]
    whole = kind.file.read_bytes()
    try:
        for content in (b"", whole[: len(whole) // 2], whole + b"\0", whole + whole, bytes(len(whole))):
            kind.file.write_bytes(content)
            with pytest.raises(MDPropError, match="is damaged") as caught:
                kind.read()
            assert "\n" not in str(caught.value)
    finally:
        kind.file.write_bytes(whole)
