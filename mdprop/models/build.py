"""Networks by name."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torchvision import models as torchvision_models

from mdprop.distributions import CLEAN
from mdprop.errors import ModelError
from mdprop.layers import convert_batchnorm
from mdprop.models.conv4 import Conv4
from mdprop.models.embedder import Embedder

RESNETS = tuple(
    name
    for name in torchvision_models.list_models(module=torchvision_models)
    if name.startswith(("resn", "wide_resn"))
)


def build_model(
    backbone: str,
    embedding_dim: int,
    *,
    branches: Sequence[str] = (CLEAN,),
    mean: Sequence[float] = (0.485, 0.456, 0.406),
    std: Sequence[float] = (0.229, 0.224, 0.225),
) -> Embedder:
    """An embedding network with one batch norm per branch; plain batch norm for one branch.

    backbone: `conv4`, a torchvision ResNet by its name there, or `timm:<name>` for any timm model
        that has batch norm (timm is an extra).
    mean, std: of the images' channels; their length is the number of channels.

    Raises `ModelError` for a backbone that is not known, not installed or has no batch norm.
    """
    channels = len(mean)
    network, in_channels = _network(backbone, embedding_dim, channels)
    if len(branches) > 1:
        try:
            convert_batchnorm(network, branches)
        except ValueError as error:
            raise ModelError(f"model.backbone '{backbone}': {error}; choose one with batch norm") from None
    return Embedder(network, mean, std, in_channels)


def _network(backbone: str, embedding_dim: int, channels: int) -> tuple[nn.Module, int]:
    if backbone == "conv4":
        return Conv4(embedding_dim, channels), channels
    if backbone in RESNETS:
        return torchvision_models.get_model(backbone, weights=None, num_classes=embedding_dim), 3
    if backbone.startswith("timm:"):
        return _timm_network(backbone.removeprefix("timm:"), embedding_dim), 3
    known = ", ".join(("conv4", *RESNETS, "timm:<name>"))
    raise ModelError(f"model.backbone: unknown backbone '{backbone}'; known: {known}")


def _timm_network(name: str, embedding_dim: int) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise ModelError(f"model.backbone 'timm:{name}' needs timm: pip install timm") from None
    if not timm.is_model(name):
        raise ModelError(f"model.backbone: timm has no model '{name}'; see timm.list_models()")
    return timm.create_model(name, num_classes=embedding_dim)
