from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mdprop.attacks import Threat
from mdprop.config.schema import EvaluateSettings
from mdprop.corruptions import CORRUPTIONS, CorruptionSettings, corrupt
from mdprop.data.loading.datasets import load_images
from mdprop.data.loading.transforms import test_transform as clean_transform
from mdprop.data.stores.adversarial import Attacked, write_adversarial
from mdprop.data.stores.embeddings import write_embeddings
from mdprop.errors import DataError, ResultError
from mdprop.robustness.corrupted import measure_corruptions
from mdprop.robustness.embedding import corrupted_batches
from mdprop.runs import Run
from tests.helpers import small_store

IDS = np.array([10, 11, 12, 13])
LABELS = np.array([0, 0, 1, 1])
SETTINGS = EvaluateSettings(ks=(1, 2), seed=0, exact_limit=1000)
THREATS = {"away": Threat(goal="untargeted", epsilon=0.1)}


def write(run: Run, name: str, angles: list[float], rows: list[int], branch: str = "clean") -> None:
    radians = np.deg2rad(angles)
    points = np.stack([np.cos(radians), np.sin(radians), 0 * radians], axis=1).astype(np.float32)
    write_embeddings(run.embeddings(branch, name), [(IDS[rows], LABELS[rows], points)])


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run("at", 0, tmp_path)
    write(run, "clean", [0, 10, 90, 100], [0, 1, 2, 3])
    return run


def test_corrupted_queries_search_the_clean_gallery_without_their_own_image(run: Run) -> None:
    write(run, "fog_1", [0, 100], [0, 2])  # on its own image: finds 11; on 13: right
    write(run, "fog_5", [88, 100], [0, 2])  # on class 1
    write(run, "jpeg_1", [0, 0], [0, 2])
    metrics, parts = measure_corruptions(run, "clean", ["fog_1", "fog_5", "jpeg_1"], SETTINGS)
    assert [metrics[name]["recall_at_1"] for name in ("fog_1", "fog_5", "jpeg_1")] == [1, 0.5, 0.5]
    assert metrics["fog_1"]["recall_at_2"] == 1 and metrics["fog_1"]["queries"] == 2
    chord = 2 * np.sin(np.deg2rad(10) / 2)
    assert metrics["fog_1"]["moved"] == pytest.approx(chord / 2, rel=1e-5)
    assert metrics["corruptions"] == pytest.approx(
        {
            "recall_at_1": 2 / 3,
            "recall_at_1_weather": 3 / 4,
            "recall_at_1_digital": 1 / 2,
            "queries": 2,
        }
    )
    assert [part["set"][0] for part in parts] == ["fog_1", "fog_5", "jpeg_1"]
    assert parts[1]["hit"].tolist() == [False, True]
    assert all(part["id"].tolist() == [10, 12] for part in parts)


def test_each_branch_has_its_own(run: Run) -> None:
    for name in ("clean", "fog_1"):
        write(run, name, [0, 90, 10, 100], [0, 1, 2, 3], branch="far")
    metrics, parts = measure_corruptions(run, "far", ["fog_1"], SETTINGS)
    assert metrics["fog_1@far"]["recall_at_1"] == metrics["corruptions@far"]["recall_at_1"] == 0
    assert parts[0]["branch"].tolist() == ["far"] * 4


def test_no_corruptions_leave_no_trace(run: Run, tmp_path: Path) -> None:
    assert measure_corruptions(run, "clean", [], SETTINGS) == ({}, [])
    store = small_store(tmp_path / "test.arrow")
    settings = CorruptionSettings(kinds=(), severities=(1,))
    assert corrupted_batches(run, "clean", store, clean_transform(16, 16), THREATS, settings.sets, 0) == {}


def test_what_is_wrong_with_a_set_is_one_line(run: Run) -> None:
    with pytest.raises(DataError, match=r"fog_1\.parquet does not exist: run the embed stage first$"):
        measure_corruptions(run, "clean", ["fog_1"], SETTINGS)
    foreign = np.eye(3, dtype=np.float32)[:2]
    write_embeddings(run.embeddings("clean", "fog_1"), [(np.array([10, 99]), LABELS[:2], foreign)])
    with pytest.raises(
        ResultError, match=r"fog_1\.parquet holds images that are not among the clean ones: run"
    ):
        measure_corruptions(run, "clean", ["fog_1"], SETTINGS)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_the_images_that_were_attacked_are_corrupted(tmp_path: Path, mode: str) -> None:
    store = small_store(tmp_path / "test.arrow", mode=mode)
    transform = clean_transform(16, 16)
    rows: NDArray[np.int64] = np.array([1, 4, 5, 11])
    run = Run("at", 0, tmp_path)
    ids, labels = torch.from_numpy(store.ids[rows]), torch.from_numpy(store.labels[rows])
    clean, none = load_images(store, rows, transform), torch.zeros(4)
    part = Attacked(ids, labels, clean, none, none, none, none, ids[None], none > 0, none > 0)
    write_adversarial(run.adversarial("clean", "away"), [part], {})
    sets = CorruptionSettings(kinds=tuple(CORRUPTIONS), severities=(1, 4)).sets
    found = corrupted_batches(run, "clean", store, transform, THREATS, sets, 7)
    assert list(found) == list(sets) and len(sets) == 2 * len(CORRUPTIONS)
    for name, (kind, severity) in sets.items():
        batches = list(found[name])
        assert torch.equal(torch.cat([b[0] for b in batches]), ids)
        assert torch.equal(torch.cat([b[1] for b in batches]), labels)
        expected = corrupt(clean, store.ids[rows], kind, severity, 7)
        assert torch.equal(torch.cat([b[2] for b in batches]), expected)
