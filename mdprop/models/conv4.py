"""The four-block convolutional network of few-shot learning, for small images."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn


class Conv4(nn.Module):
    """Four blocks of 3x3 convolution, batch norm, 2x2 max pooling and ReLU, then average pooling.

    [B, in_channels, H, W] with H, W of 16 or more -> [B, num_classes]; the last map has 128
    channels. Widths 32, 64, 128, 128; the few-shot standard (Vinyals et al. 2016) has 64 throughout.
    Theirs pools after the ReLU: the same function, with four times the work for it.
    """

    def __init__(
        self, num_classes: int, in_channels: int = 3, widths: tuple[int, ...] = (32, 64, 128, 128)
    ) -> None:
        super().__init__()
        blocks = []
        for before, after in zip((in_channels, *widths[:-1]), widths, strict=True):
            layers: OrderedDict[str, nn.Module] = OrderedDict(
                conv=nn.Conv2d(before, after, 3, padding=1, bias=False),
                bn=nn.BatchNorm2d(after),
                pool=nn.MaxPool2d(2),
                relu=nn.ReLU(inplace=True),
            )
            blocks.append(nn.Sequential(layers))
        self.blocks = nn.Sequential(*blocks)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.avgpool(self.blocks(x)).flatten(1))
