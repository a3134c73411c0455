"""Network, weights and loss on a small batch, as training and attacks use them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from mdprop.config.schema import ImageSettings, LossSettings, ModelSettings, TrainSettings
from mdprop.errors import MDPropError, one_line
from mdprop.layers import route
from mdprop.methods import Method
from mdprop.models import Embedder, place
from mdprop.models.chosen import chosen_loss, chosen_network
from mdprop.preflight.finding import Finding
from mdprop.runtime.hardware import device
from mdprop.runtime.memory import machine_memory

ROWS = 4  # of each branch in the small batch: two classes of two images


def check_network(
    methods: Sequence[Method],
    classes: int,
    images: ImageSettings,
    model: ModelSettings,
    loss: LossSettings,
    settings: TrainSettings,
) -> Iterator[Finding]:
    """Build the network with the branches of all methods, and make a step of training and of an attack.

    classes: of the training images.
    """
    try:
        branches = tuple(dict.fromkeys(branch for method in methods for branch in method.branches))
        network = place(chosen_network(model, images, branches), device())
        metric_loss = chosen_loss(loss, model, network, classes).to(device())
        size = (ROWS * len(branches), images.channels, images.image_size, images.image_size)
        batch = torch.rand(size, generator=torch.Generator().manual_seed(0)).to(device())
        try:
            _try_attack(network, batch[:ROWS], model.embedding_dim)
            kept = _try_step(network, metric_loss, batch, branches, settings)
        except (RuntimeError, ValueError, TypeError, AttributeError, IndexError, AssertionError) as error:
            yield Finding(_refused(model, images, network, error))
            return
    except MDPropError as error:
        yield Finding(str(error))
        return
    rows = max(sum(method.sizes(settings.batch_size)) for method in methods)
    yield from _check_memory(settings, rows, kept / len(batch))


def _try_attack(network: Embedder, batch: Tensor, dim: int) -> None:
    """The gradient of the pixels, through the network as it answers."""
    pixels = batch.clone().requires_grad_()
    embeddings = network.eval()(pixels)
    if embeddings.shape != (len(batch), dim):
        raise ValueError(f"{len(batch)} images become {list(embeddings.shape)}")
    if not embeddings.isfinite().all():
        raise ValueError("embeddings are not finite")
    embeddings.square().sum().backward()


def _try_step(
    network: Embedder, loss: nn.Module, batch: Tensor, branches: Sequence[str], settings: TrainSettings
) -> int:
    """A step of training; the bytes that it keeps for the backward pass, but parameters."""
    own = {value.untyped_storage().data_ptr() for value in network.parameters()}
    kept: dict[int, int] = {}

    def count(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    labels = torch.arange(len(batch), device=batch.device) % 2
    half = torch.autocast(batch.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16")
    with saved_tensors_hooks(count, lambda value: value):
        with route(network.train(), dict.fromkeys(branches, ROWS)), half:
            outputs = network.outputs(batch, features=getattr(loss, "takes_features", False))
        embeddings, *features = outputs
        value = loss(embeddings, labels, *features)
    if not value.isfinite():
        raise ValueError(f"the first loss is {value.item()}")
    if value.requires_grad:
        value.backward()
    return sum(kept.values())


def _refused(model: ModelSettings, images: ImageSettings, network: Embedder, error: Exception) -> str:
    reason = textwrap.shorten(one_line(error), 160, placeholder=" ...") or type(error).__name__
    record: Any = getattr(network.network, "pretrained_cfg", None) or {}
    made_for = f"; it was made for {record['input_size'][-1]}" if "input_size" in record else ""
    return (
        f"model.backbone = {model.backbone!r}: cannot embed image_size {images.image_size} ({reason}); "
        f"choose another backbone, or another image_size{made_for}"
    )


def _check_memory(settings: TrainSettings, rows: int, bytes_each: float) -> Iterator[Finding]:
    """rows: of the largest batch, adversarial images included; bytes_each: what a row keeps, at least."""
    most = machine_memory()
    if rows * bytes_each > most:
        fits = int(settings.batch_size * most / (rows * bytes_each))
        yield Finding(
            f"train.batch_size = {settings.batch_size}: a step keeps {rows * bytes_each / 2**30:.0f} GiB and "
            f"there are {most / 2**30:.0f}; less than {fits} is needed, or a smaller image_size or backbone"
        )
