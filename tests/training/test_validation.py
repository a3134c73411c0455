from __future__ import annotations

from pathlib import Path

import torch

from mdprop.data.loading import transforms
from mdprop.training import recall_at_1
from tests.helpers import small_embedder, small_store


def test_recall_is_that_of_the_nearest_other_image(tmp_path: Path) -> None:
    store = small_store(tmp_path / "val.arrow", classes=6, images=4)
    transform = transforms.test_transform(16, 16)
    model = small_embedder().train()
    value = recall_at_1(model, store, transform, torch.device("cpu"))
    assert not model.training
    images = transforms.to_float(torch.stack([transform(store.image(row)) for row in range(len(store))]))
    with torch.no_grad():
        embeddings = model(images)
    similarity = embeddings @ embeddings.T
    similarity.fill_diagonal_(-2)
    hits = store.labels[similarity.argmax(1).numpy()] == store.labels
    assert value == hits.mean()
    assert 0 < value <= 1
