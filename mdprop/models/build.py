"""Networks by name."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torchvision import models as torchvision_models

from mdprop.branches import CLEAN
from mdprop.errors import ModelError, one_line
from mdprop.layers import convert_batchnorm
from mdprop.models.conv4 import Conv4
from mdprop.models.efficientnet import efficientnet_lite0
from mdprop.models.embedder import Embedder, Freeze
from mdprop.models.parts import batchnorms
from mdprop.models.weights import load_weights

RESNETS = tuple(
    name
    for name in torchvision_models.list_models(module=torchvision_models)
    if name.startswith(("resn", "wide_resn"))
)


def build_model(
    backbone: str,
    embedding_dim: int,
    *,
    weights: str | None = None,
    freeze_batchnorm: Freeze = "none",
    auxiliary_momentum: float | None = None,
    branches: Sequence[str] = (CLEAN,),
    mean: Sequence[float] = (0.485, 0.456, 0.406),
    std: Sequence[float] = (0.229, 0.224, 0.225),
) -> Embedder:
    """An embedding network with one batch norm per branch; plain batch norm for one branch.

    backbone: `conv4`, a torchvision ResNet by its name there, `efficientnet_lite0` (an extra) or
        `timm:<name>` for any timm model that has batch norm (an extra).
    weights: to start from; None: random ones. Otherwise "pretrained", a torchvision weight name of the
        backbone, or a .pth, .pt or .safetensors file; the embedding layer is always new. Every branch
        starts as a full copy.
    freeze_batchnorm: see `Embedder`.
    auxiliary_momentum: of the running statistics of all branches but the clean one, the weight of a new
        batch; None: that of the backbone, which the clean one keeps.
    mean, std: of the images' channels; their length is the number of channels.

    Raises `ModelError` for a backbone that is not known, not installed or has no batch norm, and for
    weights that cannot be had or do not fit.
    """
    channels = len(mean)
    network, in_channels = _network(backbone, embedding_dim, channels)
    if weights is not None:
        load_weights(network, backbone, weights)
    if len(branches) > 1:
        try:
            convert_batchnorm(network, branches)
        except ValueError as error:
            raise ModelError(f"model.backbone '{backbone}': {error}; choose one with batch norm") from None
    if auxiliary_momentum is not None:
        for norm, clean in batchnorms(network):
            norm.momentum = norm.momentum if clean else auxiliary_momentum
    return Embedder(network, mean, std, in_channels, freeze_batchnorm)


def _network(backbone: str, embedding_dim: int, channels: int) -> tuple[nn.Module, int]:
    if backbone == "conv4":
        return Conv4(embedding_dim, channels), channels
    if backbone in RESNETS:
        return torchvision_models.get_model(backbone, weights=None, num_classes=embedding_dim), 3
    if backbone == "efficientnet_lite0":
        return efficientnet_lite0(embedding_dim), 3
    if backbone.startswith("timm:"):
        return _timm_network(backbone.removeprefix("timm:"), embedding_dim), 3
    known = ", ".join(("conv4", *RESNETS, "efficientnet_lite0", "timm:<name>"))
    raise ModelError(f"model.backbone: unknown backbone '{backbone}'; known: {known}")


def _timm_network(name: str, embedding_dim: int) -> nn.Module:
    try:
        import timm
    except ImportError:
        raise ModelError(f"model.backbone 'timm:{name}' needs timm: pip install timm") from None
    if not timm.is_model(name):
        raise ModelError(f"model.backbone: timm has no model '{name}'; see timm.list_models()")
    try:
        return timm.create_model(name, num_classes=embedding_dim)
    except RuntimeError as error:  # an unknown tag after the name's dot
        raise ModelError(f"model.backbone 'timm:{name}': {one_line(error)}") from None
