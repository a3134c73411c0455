from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from mdprop.data.loading import transforms
from mdprop.training import validate
from tests.helpers import small_embedder, small_store


def test_recall_is_that_of_the_nearest_other_image(tmp_path: Path) -> None:
    store = small_store(tmp_path / "val.arrow", classes=6, images=4)
    transform = transforms.test_transform(16, 16)
    model = small_embedder().train()
    value, spread = validate(model, store, transform, torch.device("cpu"))
    assert not model.training
    images = transforms.to_float(torch.stack([transform(store.image(row)) for row in range(len(store))]))
    with torch.no_grad():
        embeddings = model(images)
    similarity = embeddings @ embeddings.T
    similarity.fill_diagonal_(-2)
    hits = store.labels[similarity.argmax(1).numpy()] == store.labels
    assert value == hits.mean()
    assert 0 < value <= 1
    others = ~torch.eye(len(store), dtype=torch.bool)
    assert spread == pytest.approx(1 - float(similarity[others].mean()), abs=1e-5)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_embeddings_that_are_no_numbers_have_no_recall(tmp_path: Path, value: float) -> None:
    store = small_store(tmp_path / "val.arrow", classes=3, images=2)
    model = small_embedder()
    model.network.fc.bias.data[0] = value
    found = validate(model, store, transforms.test_transform(16, 16), torch.device("cpu"))
    assert math.isnan(found.recall_at_1) and math.isnan(found.spread)
