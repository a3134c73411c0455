from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from mdprop.data.loading import transforms
from mdprop.data.loading.datasets import store_batches
from mdprop.data.stores.embeddings import read_embeddings
from mdprop.data.stores.images import Batch, ImageStore
from mdprop.models.embedder import embed_images
from mdprop.robustness.embedding import extract_embeddings, input_batches, set_sizes
from mdprop.runs import Run
from tests.helpers import small_embedder, small_store

CPU = torch.device("cpu")
TRANSFORM = transforms.test_transform(16, 16)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return small_store(tmp_path / "test.arrow", classes=4, images=3)


@pytest.mark.parametrize(("size", "sizes"), [(5, [5, 5, 2]), (12, [12]), (64, [12]), (1, [1] * 12)])
def test_all_images_of_a_store_in_order(store: ImageStore, size: int, sizes: list[int]) -> None:
    batches = list(store_batches(store, TRANSFORM, batch_size=size))
    assert [len(ids) for ids, _, _ in batches] == sizes
    ids, labels, images = (torch.cat(column) for column in zip(*batches, strict=True))
    assert ids.tolist() == store.ids.tolist() == list(range(100, 112))
    assert labels.tolist() == store.labels.tolist()
    assert torch.equal(
        images, transforms.to_float(torch.stack([TRANSFORM(store.image(i)) for i in range(12)]))
    )


def test_the_batches_of_some_turns(store: ImageStore) -> None:
    batches = list(store_batches(store, TRANSFORM, slice(0, None, 2), batch_size=5))
    assert [ids.tolist() for ids, _, _ in batches] == [[100, 101, 102, 103, 104], [110, 111]]


def test_the_batches_of_some_rows(store: ImageStore) -> None:
    batches = list(store_batches(store, TRANSFORM, rows=np.array([1, 4, 9]), batch_size=2))
    assert [ids.tolist() for ids, _, _ in batches] == [[101, 104], [109]]
    assert batches[1][1].tolist() == [store.labels[9]]


def test_some_clean_images_come_alone_too(store: ImageStore) -> None:
    sets = input_batches(Run("x", 0), "clean", {"clean": store, "gallery": store}, TRANSFORM, {})
    assert list(sets) == ["clean", "gallery", "alone"]
    alone = [ids.tolist() for ids, _, _ in sets["alone"]]
    assert alone == [[i] for i in range(100, 112)]


def test_sizes_are_those_of_the_batches(store: ImageStore) -> None:
    run, stores = Run("x", 0), {"clean": store, "gallery": store}
    sets = input_batches(run, "clean", stores, TRANSFORM, {})
    counted = {name: sum(len(ids) for ids, _, _ in batches) for name, batches in sets.items()}
    assert set_sizes(run, "clean", stores, {}) == counted


def test_embeddings_are_the_models_in_eval_mode(tmp_path: Path, store: ImageStore) -> None:
    model = small_embedder().train()
    statistics = {key: value.clone() for key, value in model.state_dict().items()}
    extract_embeddings(model, store_batches(store, TRANSFORM), tmp_path / "clean.parquet", CPU)
    assert not model.training
    assert all(torch.equal(value, statistics[key]) for key, value in model.state_dict().items())
    ids, labels, embeddings = read_embeddings(tmp_path / "clean.parquet")
    assert ids.tolist() == store.ids.tolist()
    assert labels.tolist() == store.labels.tolist()
    images = transforms.to_float(torch.stack([TRANSFORM(store.image(i)) for i in range(12)]))
    with torch.no_grad():
        assert_close(torch.tensor(embeddings), model(images))


def test_the_size_of_a_batch_does_not_matter(tmp_path: Path, store: ImageStore) -> None:
    results = []
    for size in (5, 64):
        batches = store_batches(store, TRANSFORM, batch_size=size)
        extract_embeddings(small_embedder(), batches, tmp_path / f"{size}.parquet", CPU)
        results.append(torch.tensor(read_embeddings(tmp_path / f"{size}.parquet")[2]))
    assert_close(results[0], results[1])


def test_adversarial_batches_are_embedded_as_they_come(tmp_path: Path) -> None:
    model = small_embedder().eval()
    batches = [(torch.tensor([7, 3]), torch.tensor([1, 0]), torch.rand(2, 1, 16, 16)) for _ in range(2)]
    extract_embeddings(model, batches, tmp_path / "a.parquet", CPU)
    ids, labels, embeddings = read_embeddings(tmp_path / "a.parquet")
    assert (ids.tolist(), labels.tolist()) == ([7, 3, 7, 3], [1, 0, 1, 0])
    expected = torch.cat([embed_images(model, images, CPU) for _, _, images in batches])
    assert torch.equal(torch.tensor(embeddings), expected)


def test_embedding_needs_no_gradient() -> None:
    embeddings = embed_images(small_embedder().eval(), torch.rand(2, 1, 16, 16), CPU)
    assert not embeddings.requires_grad
    assert_close(embeddings.norm(dim=1), torch.ones(2))


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[Batch]:
        yield torch.tensor([0]), torch.tensor([0]), torch.rand(1, 1, 16, 16)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        extract_embeddings(small_embedder(), broken(), tmp_path / "a.parquet", CPU)
    assert list(tmp_path.iterdir()) == []
