"""`mdprop.fit` on ordinary loaders."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import mdprop
from mdprop.errors import DataError, MDPropError, ModelError, ParameterError
from mdprop.layers import multi_batchnorms
from mdprop.methods import METHODS, Method, Slice
from mdprop.models import Embedder
from tests.helpers import small_embedder
from tests.library.pictures import pictures


class Pairs(Dataset[tuple[Tensor, Any]]):
    """Images with labels of any kind, as people write data sets."""

    def __init__(self, kind: Any = int, count: int = 22) -> None:
        self.images, labels = pictures(count)
        self.labels = [kind(label) for label in labels.tolist()]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        return self.images[index], self.labels[index]


@pytest.mark.parametrize("kind", [int, torch.tensor, np.int64, lambda label: 1000 - label])
@pytest.mark.parametrize("method", ["standard", "mdprop"])
def test_an_ordinary_loader_trains(kind: Any, method: str) -> None:
    model = mdprop.fit("conv4", DataLoader(Pairs(kind), 8, shuffle=True), method=method, epochs=1)
    assert isinstance(model, Embedder) and not model.training
    images, _ = pictures(3)
    with torch.no_grad():
        embeddings = model(images)
    assert embeddings.shape == (3, 128)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(3))
    assert [list(norm.branches) for norm in multi_batchnorms(model)][:1] == (
        [] if method == "standard" else [list(METHODS[method].branches)]
    )


def test_it_learns() -> None:
    images, labels = pictures(60)
    loader = DataLoader(TensorDataset(images, labels), 20, shuffle=True)
    before, after = (mdprop.fit(small_embedder(), loader, epochs=n, learning_rate=1e-2) for n in (0, 6))
    found = []
    for model in (before, after):
        with torch.no_grad():
            embeddings = model(images)
        same = labels[:, None] == labels
        distances = torch.cdist(embeddings, embeddings)
        found.append((distances[~same].mean() / distances[same].mean()).item())
    assert found[1] > 1.2 * found[0]


def test_the_same_seed_gives_the_same_network_and_another_one_another() -> None:
    def weights(seed: int) -> Tensor:
        loader = DataLoader(Pairs(), 8, shuffle=True)
        model = mdprop.fit("conv4", loader, epochs=1, seed=seed)
        return torch.cat([value.flatten() for value in model.parameters()])

    first = weights(1)
    assert torch.equal(first, weights(1))
    assert not torch.equal(first, weights(2))


def test_uint8_floats_and_lists_of_batches_are_the_same_images() -> None:
    images, labels = pictures(16)
    levels = (images * 255).round().to(torch.uint8)
    halves = [slice(0, 8), slice(8, 16)]
    found = []
    for kind in (levels, levels.float() / 255):
        batches = [(kind[half], labels[half].tolist()) for half in halves]
        model = mdprop.fit(small_embedder(), batches, method="standard", epochs=1)
        found.append(torch.cat([value.flatten() for value in model.parameters()]))
        assert (images >= 0).all() and (images <= 1).all()  # not divided in place
    torch.testing.assert_close(found[0], found[1])


def test_the_callers_images_stay() -> None:
    images, labels = pictures(8)
    kept = images.clone()
    mdprop.fit(small_embedder(), [(images, labels)], epochs=1)
    assert torch.equal(images, kept)


class Centres(nn.Module):
    """A loss of one's own, with parameters, that looks labels up."""

    def __init__(self, names: list[int]) -> None:
        super().__init__()
        self.names = torch.tensor(names)
        self.centres = nn.Parameter(torch.randn(len(names), 6))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        assert torch.isin(labels, self.names).all()
        rows = torch.searchsorted(self.names, labels)
        return (embeddings - self.centres[rows]).square().sum(1).mean()


def test_a_loss_of_ones_own_sees_the_labels_as_they_are_and_learns() -> None:
    images, labels = pictures(16)
    loss = Centres([10, 20, 30, 40])
    before = loss.centres.detach().clone()
    mdprop.fit(small_embedder(), [(images, labels % 4 * 10 + 10)], method="at", loss=loss, epochs=1)
    assert not torch.equal(before, loss.centres)


@pytest.mark.parametrize("loss", ["arcface", "proxy_anchor"])
def test_losses_with_class_centres_take_labels_of_any_size(loss: str) -> None:
    images, labels = pictures(16)
    model = mdprop.fit(small_embedder(), [(images, labels * 10**12 - 5)], loss=loss, epochs=1)
    assert all(value.isfinite().all() for value in model.parameters())


def test_a_module_of_ones_own_is_trained_in_place() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 5),
    )
    images, labels = pictures(16)
    model = mdprop.fit(network, [(images, labels)], epochs=1)
    assert model.network is network
    assert list(multi_batchnorms(network)[0].branches) == list(METHODS["mdprop"].branches)
    again = mdprop.fit(model, [(images, labels)], method="advprop", epochs=1)  # its branches are among them
    assert again is model


def test_a_method_of_ones_own() -> None:
    method = Method.of(
        "mine", [Slice.model_validate({"goal": "single_target", "branch": "near", "share": 0.5})]
    )
    images, labels = pictures(16)
    model = mdprop.fit(small_embedder(), [(images, labels)], method=method, epochs=1)
    assert list(multi_batchnorms(model)[0].branches) == ["clean", "near"]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_last_batch_too_small_is_left_out_and_said(size: int, capsys: pytest.CaptureFixture[str]) -> None:
    mdprop.fit(small_embedder(), DataLoader(Pairs(count=8 + size), 8), epochs=2)
    said = capsys.readouterr().err
    assert said.count(f"1 of 2 batches left out of each epoch, of {size} images") == 1


def test_batches_without_pairs_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    images, labels = pictures(16)
    mdprop.fit(small_embedder(), [(images, torch.arange(16))], method="standard", epochs=1)
    assert "warning: 0% of the images have another of their class in their batch" in capsys.readouterr().err
    mdprop.fit(small_embedder(), [(images, labels)], method="standard", epochs=1)
    assert "warning" not in capsys.readouterr().err


class Stream(IterableDataset[tuple[Tensor, int]]):
    def __iter__(self) -> Any:
        return iter(zip(*pictures(4), strict=True))


IMAGES, LABELS = pictures(8)


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        ([], r"^the loader gives no batch"),
        (DataLoader(Stream(), 4), r"^the loader, a DataLoader, has no length"),
        ((batch for batch in [(IMAGES, LABELS)]), r"^the loader, a generator, has no length"),
        ([IMAGES], r"^batch 0 of the loader is a Tensor: a pair \(images, labels\) is needed$"),
        ([(IMAGES, LABELS, LABELS)], r"is a tuple of 3: a pair"),
        ([{"image": IMAGES}], r"is a dict: a pair"),
        ([(IMAGES.tolist(), LABELS)], r"has images of list: a tensor \[B, C, H, W\] is needed"),
        ([(IMAGES[0], LABELS)], r"has images \[1, 16, 16\]"),
        ([(IMAGES.long(), LABELS)], r"has images of torch.int64: floats"),
        ([(IMAGES * 255, LABELS)], r"has pixels from .* to 2\d\d.*: they must be in \[0, 1\]"),
        ([(IMAGES * 2 - 1, LABELS)], r"has pixels from -.*leave Normalize out"),
        ([(IMAGES * math.nan, LABELS)], r"has pixels from nan to nan"),
        ([(IMAGES, ["a"] * 8)], r"has labels of str, in a list: one whole number an image"),
        ([(IMAGES, LABELS.float())], r"has labels of torch.float32 \[8\]"),
        ([(IMAGES, LABELS[:, None])], r"has labels of torch.int64 \[8, 1\]"),
        ([(IMAGES, LABELS[:3])], r"has 3 labels for 8 images"),
        ([(IMAGES[:1], LABELS[:1])], r"^batches of 1 images are too small for method 'mdprop'"),
    ],
)
def test_what_no_loader_may_give(loader: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        mdprop.fit(small_embedder(), loader, epochs=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"model": "conv5"}, ModelError, "unknown backbone 'conv5'"),
        ({"model": 3}, ModelError, "the model is a int: a torch module"),
        ({"model": small_embedder(channels=3)}, ModelError, "is for 3 channels, .* the images have 1"),
        (
            {"model": small_embedder(("clean", "other"))},
            ModelError,
            "has the branches clean, other, and method",
        ),
        ({"model": nn.Flatten()}, ModelError, "method 'mdprop': the module has no batch norm to convert"),
        ({"model": nn.Conv2d(1, 2, 3), "method": "at"}, ModelError, r"returns \[2, 2, 14, 14\] for images"),
        ({"method": "mprop"}, ParameterError, "unknown method 'mprop'; known: standard"),
        ({"loss": "triplet"}, ParameterError, "unknown loss 'triplet'"),
        ({"loss": lambda x, y: x}, ParameterError, "the loss is a function: a name or a torch module"),
        ({"epochs": -1}, ParameterError, "^epochs = -1: a whole number from 0"),
        ({"learning_rate": "fast"}, ParameterError, "^learning_rate = 'fast': a number"),
        ({"epsilon": 8}, ParameterError, "^epsilon = 8"),
        ({"epsilon": None}, ParameterError, "^epsilon = null"),
        ({"steps": 0}, ParameterError, "^steps = 0"),
        ({"targets": 0}, ParameterError, "^targets = 0"),
    ],
)
def test_what_fit_refuses(given: dict[str, Any], kind: type[MDPropError], message: str) -> None:
    arguments: dict[str, Any] = {"model": "conv4", "epochs": 1, **given}
    with pytest.raises(kind, match=message) as caught:
        mdprop.fit(arguments.pop("model"), [(IMAGES, LABELS)], **arguments)
    assert "\n" not in str(caught.value)


def test_images_of_odd_channels_need_a_network_that_is_built_for_them() -> None:
    images = IMAGES.repeat(1, 2, 1, 1)
    with pytest.raises(ModelError, match=r"^images of 2 channels: give build_model"):
        mdprop.fit("conv4", [(images, LABELS)])
    model = mdprop.build_model("conv4", 8, mean=[0.5, 0.5], std=[0.2, 0.2])
    mdprop.fit(model, [(images, LABELS)], epochs=1)
