from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from mdprop.data.loading import transforms
from mdprop.data.loading.datasets import TrainImages, load_images, row_batches, train_loader
from mdprop.data.loading.samplers import ClassBalancedSampler
from mdprop.data.loading.transforms import apply_seeded, to_float, train_transform
from mdprop.data.stores.images import ImageStore
from tests.helpers import small_store


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return small_store(tmp_path / "train.arrow", classes=5, images=4, size=18)


def epoch(store: ImageStore, workers: int, number: int = 0) -> list[tuple[Tensor, Tensor]]:
    sampler = ClassBalancedSampler(store.labels, 6, 2, seed=7)
    sampler.epoch = number
    return list(train_loader(TrainImages(store, train_transform(12, (0.5, 1.0), True)), sampler, workers))


def test_a_training_image_is_drawn_from_its_row_and_seed(store: ImageStore) -> None:
    transform = train_transform(12, (0.5, 1.0), True)
    images = TrainImages(store, transform)
    assert len(images) == 20
    pixels, label = images[13, 99]
    assert label == store.labels[13] == 13
    assert torch.equal(pixels, apply_seeded(transform, store.image(13), 99))
    assert torch.equal(pixels, images[13, 99][0])
    assert not torch.equal(pixels, images[13, 98][0])


def test_batches_are_those_of_the_sampler(store: ImageStore) -> None:
    batches = epoch(store, workers=0)
    sampler = ClassBalancedSampler(store.labels, 6, 2, seed=7)
    images = TrainImages(store, train_transform(12, (0.5, 1.0), True))
    assert len(batches) == len(sampler) == 3
    for (pixels, labels), keys in zip(batches, sampler, strict=True):
        assert pixels.shape == (6, 1, 12, 12)
        assert pixels.dtype == torch.uint8
        assert labels.tolist() == [int(store.labels[row]) for row, _ in keys]
        assert torch.equal(pixels, torch.stack([images[key][0] for key in keys]))


def test_workers_change_nothing(store: ImageStore) -> None:
    sampler = ClassBalancedSampler(store.labels, 6, 2, seed=7)
    images = TrainImages(store, train_transform(12, (0.5, 1.0), True))
    loader = train_loader(images, sampler, workers=2)
    for number in (0, 1):  # the workers persist: a later epoch reaches them too
        sampler.epoch = number
        torch.manual_seed(number)
        parallel = list(loader)
        serial = epoch(store, 0, number)
        assert len(parallel) == len(serial)
        for (pixels, labels), (expected, expected_labels) in zip(parallel, serial, strict=True):
            assert torch.equal(pixels, expected)
            assert torch.equal(labels, expected_labels)


def test_rows_of_a_store_in_any_order(store: ImageStore) -> None:
    transform = transforms.test_transform(18, 16)
    for rows in ([4, 0, 4], np.array([4, 0, 4])):
        pixels = load_images(store, rows, transform)
        assert torch.equal(pixels, to_float(torch.stack([transform(store.image(row)) for row in (4, 0, 4)])))


@pytest.mark.parametrize(
    ("count", "size", "expected"), [(7, 3, [3, 3, 1]), (6, 3, [3, 3]), (2, 3, [2]), (0, 3, [])]
)
def test_pieces_of_rows(count: int, size: int, expected: list[int]) -> None:
    pieces = list(row_batches(range(count), size))
    assert [len(piece) for piece in pieces] == expected
    assert [row for piece in pieces for row in piece] == list(range(count))
