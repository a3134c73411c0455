"""A training as params.yaml describes it: what its curves begin with, and what is said of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mdprop.config.schema import LossSettings, ModelSettings
from mdprop.data.readers.settings import ImageSettings
from mdprop.errors import ParameterError
from mdprop.methods import METHODS
from mdprop.models import Embedder
from mdprop.parallel.resume import kept
from mdprop.report.curves import read_curves
from mdprop.runs import Run
from mdprop.training import run, train_run, validate
from mdprop.training.validation import Validation
from tests.helpers import small_store, train_settings

SIZES: dict[str, Any] = {"mode": "L", "resize": 16, "encoding": "raw", "image_size": 16}
IMAGES = ImageSettings.model_construct(**SIZES, crop_scale=(0.5, 1.0), flip=True, mean=(0.5,), std=(0.25,))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("prepared").mkdir()
    small_store(Path("prepared/train.arrow"), classes=4, images=6)
    small_store(Path("prepared/val.arrow"), classes=3, images=3)


def trained(freeze: Any = "none", **options: Any) -> Embedder:
    with kept("train", {"of": options}) as state:
        return train_run(
            METHODS["standard"],
            0,
            Path("prepared"),
            Run("standard", 0).live,
            images=IMAGES,
            model=ModelSettings(
                backbone="conv4",
                weights=None,
                embedding_dim=6,
                freeze_batchnorm=freeze,
                auxiliary_momentum=None,
            ),
            loss=LossSettings(name="multi_similarity", options={}, miner=None, miner_options={}),
            settings=train_settings(**{"epochs": 2, "validate_every": 1, **options}),
            attack=None,
            state=state,
        )


def curve() -> list[tuple[int, float]]:
    (found,) = read_curves([Run("standard", 0)]).values()
    return list(found.get("validation_recall_at_1", []))


def validating(monkeypatch: pytest.MonkeyPatch, *values: float) -> None:
    """Give validation these values, one after the other."""
    given = iter(values)
    monkeypatch.setattr(run, "validate", lambda *arguments: Validation(next(given), 0.5))


def warnings(capfd: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning: ")]


def test_curves_begin_before_the_first_epoch_and_weights_do_not_know() -> None:
    model = trained()
    assert [epoch for epoch, _ in curve()] == [0, 1, 2]
    without = trained(validate_every=0)
    assert curve() == []
    for value, other in zip(model.state_dict().values(), without.state_dict().values(), strict=True):
        assert torch.equal(value, other)
    trained(validate_every=2)
    assert [epoch for epoch, _ in curve()] == [0, 2]


def test_the_first_point_is_that_of_the_network_as_it_starts() -> None:
    untrained = trained(epochs=0)
    ((epoch, value),) = curve()
    store = run.ImageStore(Path("prepared/val.arrow"))
    expected = validate(untrained, store, run.test_transform(16, 16), torch.device("cpu"))
    assert (epoch, value) == (0, expected.recall_at_1)


def test_no_epochs_and_no_validation_leave_empty_curves() -> None:
    trained(epochs=0, validate_every=0)
    assert Run("standard", 0).live.is_dir()
    assert curve() == []


@pytest.mark.parametrize("freeze", ["none", "clean", "statistics", "all"])
def test_a_training_that_ends_below_its_start_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], freeze: str
) -> None:
    validating(monkeypatch, 0.7, 0.8, 0.6)
    trained(freeze)
    (line,) = warnings(capfd)
    assert "training of standard, seed 0, ends below its start" in line
    assert "70.0% before and 60.0% after 2 epochs;" in line
    assert ("model.freeze_batchnorm=statistics" in line) == (freeze in ("none", "clean"))
    assert "a lower train.learning_rate (0.01)" in line and "docs/guide.md" in line


@pytest.mark.parametrize("values", [(0.7, 0.1, 0.7), (0.7, 0.6, 0.8)])
def test_a_training_that_does_not_says_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], values: tuple[float, ...]
) -> None:
    validating(monkeypatch, *values)
    trained()
    assert warnings(capfd) == []


def test_a_start_that_is_alike_or_no_number(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run, "validate", lambda *arguments: Validation(0.5, 0.0))
    trained(epochs=0)
    assert warnings(capfd) == []  # a network that was not trained has not collapsed
    monkeypatch.setattr(run, "validate", lambda *arguments: Validation(torch.nan, torch.nan))
    with pytest.raises(
        ParameterError, match=r"not finite before the first epoch; choose other model\.weights"
    ):
        trained()
