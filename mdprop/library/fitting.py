"""Training by a method on one's own `DataLoader`."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from mdprop.errors import DataError, ParameterError
from mdprop.library.loaders import Loader, batches
from mdprop.library.networks import trainable
from mdprop.library.settings import attack_settings, train_settings
from mdprop.losses import build_loss
from mdprop.losses.library import CLASS_LOSSES
from mdprop.methods import Method, get_method
from mdprop.models import Embedder, place
from mdprop.parallel.exchange import world_size
from mdprop.runtime.hardware import device
from mdprop.runtime.state import say
from mdprop.training.loop import train

FEW_PARTNERS = 0.5
"""The share of images with another of their class in their batch below which a line says so."""


def fit(
    model: str | nn.Module,
    loader: Loader,
    *,
    method: str | Method = "mdprop",
    loss: str | nn.Module = "multi_similarity",
    epochs: int = 10,
    learning_rate: float = 1e-3,
    epsilon: float = 4 / 255,
    steps: int = 1,
    targets: int = 5,
    seed: int = 0,
) -> Embedder:
    """Train a network on one's own images; in eval mode, on the device of `$MDPROP_DEVICE`.

    model: a backbone's name, such as "conv4" or "resnet18", from random weights with 128 dimensions; what
        `build_model` returns, for other weights, dimensions or means; or any module of pixels
        [B, C, H, W] in [0, 1] that returns embeddings [B, D], which is trained in place. A method with
        branches gives each batch norm a copy for each of them.
    loader: batches of images [B, C, H, W], floats in [0, 1] or uint8, and labels [B], whole numbers: any
        `DataLoader` with a length. Losses of pairs need batches that hold several images of a class.
    method: a name of `mdprop.methods.METHODS`, or a `Method`.
    loss: a name of docs/losses.md with its defaults, or a module of (embeddings [B, D] of unit norm,
        labels [B]) -> scalar, whose own parameters are trained too.
    learning_rate: the peak of a one-cycle schedule, of Adam; docs/library.md has rates by network.
    epsilon: the L-infinity radius of adversarial examples, in pixels of [0, 1], made in `steps` steps;
        multi-targeted ones look at `targets` others.
    seed: of weights, order and attacks; torch's global generator is seeded.

    A batch too small for each slice of the method to have two images is left out, which a line says.

    Raises `DataError`, `ModelError` or `ParameterError`, one line, for what cannot be trained.
    """
    chosen = get_method(method) if isinstance(method, str) else method
    settings, attack = train_settings(epochs, learning_rate), attack_settings(epsilon, steps, targets)
    if world_size() > 1:
        raise ParameterError("fit trains in one process: start it without torchrun")
    length = _length(loader)
    images, _ = next(batches(loader))
    torch.manual_seed(seed)
    embedder = place(trainable(model, chosen, images.shape[1]), device())
    numbers = _class_numbers(loader) if isinstance(loss, str) and _counts_classes(loss) else None
    metric_loss = _loss(loss, embedder, images, 2 if numbers is None else len(numbers)).to(device())
    epoch = _Batches(loader, length, chosen, numbers)
    return train(embedder, metric_loss, chosen, epoch, settings, attack if chosen.adversarial else None, seed)


def _length(loader: Loader) -> int:
    try:
        return len(loader)  # type: ignore[arg-type]  # what has none says so
    except TypeError:
        raise DataError(
            f"the loader, a {type(loader).__name__}, has no length, by which the learning rate is scheduled: "
            "give a DataLoader of a data set with __len__, or a list of batches"
        ) from None


def _loss(loss: str | nn.Module, embedder: Embedder, images: Tensor, classes: int) -> nn.Module:
    if isinstance(loss, nn.Module):
        return loss
    if not isinstance(loss, str):
        raise ParameterError(f"the loss is a {type(loss).__name__}: a name or a torch module is needed")
    with torch.no_grad():
        dim = embedder.eval()(images[:2].to(embedder.mean.device)).shape[1]
    try:
        features = embedder.feature_dim
    except (AttributeError, IndexError):  # of a network from elsewhere; a loss that needs them says so
        features = 1
    return build_loss(loss, embedding_dim=dim, num_classes=classes, feature_dim=features)


def _counts_classes(loss: str) -> bool:
    return loss == "arcface" or loss in CLASS_LOSSES


def _class_numbers(loader: Loader) -> Tensor:
    """The labels of all classes, sorted, from one pass."""
    return torch.cat([labels.unique() for _, labels in batches(loader)]).unique()


class _Batches:
    """The batches of each epoch that are large enough; labels are places in `numbers`, if there are any."""

    persistent_workers = False

    def __init__(self, loader: Loader, length: int, method: Method, numbers: Tensor | None) -> None:
        self.loader, self.length, self.method, self.numbers = loader, length, method, numbers
        self._first = True

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        small: list[int] = []
        partners = images_seen = 0
        for images, labels in batches(self.loader):
            if 1 in self.method.sizes(len(images)):
                small.append(len(images))
                continue
            counts = labels.unique(return_counts=True)[1]
            partners, images_seen = partners + int(counts[counts > 1].sum()), images_seen + len(labels)
            yield images, self._numbered(labels)
        if not images_seen:
            raise DataError(
                f"batches of {max(small)} images are too small for method '{self.method.name}': each of its "
                "slices needs two images; give the loader a larger batch_size"
            )
        if self._first:
            self._first = False
            self._tell(small, partners / images_seen)

    def _numbered(self, labels: Tensor) -> Tensor:
        if self.numbers is None:
            return labels
        places = torch.searchsorted(self.numbers, labels).clamp(max=len(self.numbers) - 1)
        if not torch.equal(self.numbers[places], labels):
            new = labels[self.numbers[places] != labels][0]
            raise DataError(
                f"the loader gives the label {new}, which it did not give when classes were counted"
            )
        return places

    def _tell(self, small: list[int], share: float) -> None:
        if small:
            say(
                f"{len(small)} of {len(self)} batches left out of each epoch, of {small[0]} images: each "
                f"slice of method '{self.method.name}' needs two; drop_last=True says the same"
            )
        if self.numbers is None and share < FEW_PARTNERS:
            say(
                f"{share:.0%} of the images have another of their class in their batch, and losses of pairs "
                "learn from those; draw batches by "
                "pytorch_metric_learning.samplers.MPerClassSampler(labels, m=2)",
                "warning",
            )
