"""A training that was interrupted ends as one that was not."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from mdprop.data.stores.images import ImageStore
from mdprop.runtime.state import states_folder
from tests.helpers import small_store
from tests.training.interrupted import CASES, EPOCHS, STEPS, Curves, Killed, assert_same, begun


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    return small_store(tmp_path_factory.mktemp("store") / "train.arrow", classes=4, images=6)


@pytest.mark.parametrize(
    ("case", "every"), [*((case, 0) for case in CASES), *((case, 2) for case in CASES), ("drawing", 1)]
)
def test_a_training_ends_as_if_it_was_never_interrupted(
    store: ImageStore, case: str, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_curves: Curves = []
    expected = begun(store, case, curves=whole_curves)
    assert not states_folder().exists()
    monkeypatch.setenv("MDPROP_STATE_EVERY", str(every))
    draw = random.Random(f"{case} {every}")
    curves: Curves = []
    for _ in range(3):
        # An epoch and a step more: each attempt gets somewhere.
        stop = draw.randint(STEPS + 1, STEPS + 2) if every != 1 else draw.randint(2, 4)
        torch.rand(draw.randint(1, 9))
        try:
            found = begun(store, case, stop, curves)
            break
        except Killed:
            assert states_folder().exists()
    else:
        found = begun(store, case, None, curves)
    assert_same(found, expected)
    assert curves == whole_curves
    assert len(curves) == EPOCHS
    assert not states_folder().parent.exists()


def test_no_step_of_an_epoch_that_was_done_is_done_again(store: ImageStore) -> None:
    with pytest.raises(Killed):
        begun(store, stop=2 * STEPS + 2)
    with pytest.raises(Killed):
        begun(store, stop=STEPS)  # its last one
    begun(store, stop=STEPS + 1)


def test_skipped_batches_are_not_loaded(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MDPROP_STATE_EVERY", "1")
    with pytest.raises(Killed):
        begun(store, stop=3 * STEPS)
    loaded: list[int] = []
    image = ImageStore.image
    monkeypatch.setattr(ImageStore, "image", lambda self, row: loaded.append(row) or image(self, row))
    begun(store)
    assert len(loaded) == 8


@pytest.mark.parametrize("every", [0, 2])
def test_with_workers_that_load_images(
    store: ImageStore, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    expected = begun(store, "drawing", workers=1)
    monkeypatch.setenv("MDPROP_STATE_EVERY", str(every))
    with pytest.raises(Killed):
        begun(store, "drawing", stop=STEPS + 3, workers=1)
    assert_same(begun(store, "drawing", workers=1), expected)
