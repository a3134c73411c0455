"""The network that a caller of the library names, gives or has trained."""

from __future__ import annotations

import copy

from torch import nn

from mdprop.branches import ALL, CLEAN
from mdprop.errors import ModelError
from mdprop.layers import convert_batchnorm, extract_branch, multi_batchnorms
from mdprop.methods import Method
from mdprop.models import Embedder, build_model, place
from mdprop.models.joint import JointEmbedder
from mdprop.robustness.foreign import ForeignEmbedder
from mdprop.robustness.networks import Network
from mdprop.runtime.hardware import device

EMBEDDING_DIM = 128
"""Of a backbone that is named; `build_model` makes others."""

USUAL = {1: ((0.5,), (0.25,)), 3: ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))}
"""mean and std by the number of channels: ImageNet's for colour."""


def trainable(model: str | nn.Module, method: Method, channels: int) -> Embedder:
    """The network as training begins, with the branches of the method, for images of so many channels.

    Raises `ModelError` for one that cannot have these branches, or is for other images.
    """
    if isinstance(model, str):
        if channels not in USUAL:
            raise ModelError(
                f"images of {channels} channels: give build_model('{model}', {EMBEDDING_DIM}, mean=..., "
                "std=...), with a number a channel in each"
            )
        mean, std = USUAL[channels]
        return build_model(model, EMBEDDING_DIM, branches=method.branches, mean=mean, std=std)
    embedder = _embedder(model, channels)
    norms = multi_batchnorms(embedder.network)
    if norms and not set(norms[0].branches).issuperset(method.branches):
        raise ModelError(
            f"the network has the branches {', '.join(norms[0].branches)}, and method '{method.name}' needs "
            f"{', '.join(method.branches)}: give a network without branches, or extract_branch(model.network)"
        )
    if not norms and len(method.branches) > 1:
        try:
            convert_batchnorm(embedder.network, method.branches)
        except ValueError as error:
            raise ModelError(f"method '{method.name}': {error}; standard and at do without") from None
    return embedder


def _embedder(model: nn.Module, channels: int) -> Embedder:
    """`model` itself where it is one of ours, else any module of pixels [B, C, H, W] in [0, 1], as one."""
    if not isinstance(model, nn.Module):
        raise ModelError(
            f"the model is a {type(model).__name__}: a torch module, or to train a name, is needed"
        )
    if not isinstance(model, Embedder):
        name = f"the network, a {type(model).__name__},"
        return ForeignEmbedder(model, [0.0] * channels, [1.0] * channels, normalize=False, name=name)
    if len(model.mean) != channels:
        raise ModelError(
            f"the network is for {len(model.mean)} channels, as its mean and std are, and the images have "
            f"{channels}: build it with {channels} numbers in each, or convert the images"
        )
    return model


def measurable(model: nn.Module, channels: int, branch: str) -> Network:
    """A network to measure through a branch, or a mixture of two; one of ours is copied.

    Raises `ModelError` for a branch that it does not have, and for one that is for other images.
    """
    embedder = _embedder(model, channels)
    norms = multi_batchnorms(embedder.network)

    def load(wanted: str) -> Embedder | JointEmbedder:
        if isinstance(embedder, ForeignEmbedder) and not norms:
            return embedder.to(device()).eval()
        copied = place(copy.deepcopy(embedder), device()).eval()
        if wanted == ALL:
            return JointEmbedder(copied)
        try:
            copied.network = extract_branch(copied.network, wanted)
        except ValueError as error:
            raise ModelError(f"the network: {error}") from None
        return copied

    return Network("the network", load, frozenset(norms[0].branches if norms else {CLEAN}), branch)
