"""An embedding network: pixels in [0, 1] to points on the unit sphere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mdprop.errors import ModelError
from mdprop.models.parts import batchnorms, feature_dim, frozen, head_parameters, pooling_layer

Freeze = Literal["none", "clean", "statistics", "all"]


class Embedder(nn.Module):
    """Normalises pixels, runs a network whose last layer is the embedding, and L2-normalises.

    [B, C, H, W] in [0, 1] -> [B, D]. Because normalisation is inside, attacks work in pixels. Under
    autocast the network computes in less precision; what it returns has the model's own all the same.

    network: a plain torchvision, timm or conv4 network; its keys stay as they are, so that
        `extract_branch(model.network)` is what torchvision loads.
    mean, std: one value a channel of the images. A grey image meets a network of three channels
        as three equal ones.
    freeze_batchnorm: "clean": in train mode too, the clean batch norms use and keep their running
        statistics, and their weight and bias learn; "statistics": so do those of every branch (what
        the authors' `freeze_main` does, by an oversight); "all": likewise, and no weight or bias of
        theirs learns (the authors' `frozen`).
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        in_channels: int,
        freeze_batchnorm: Freeze = "none",
    ) -> None:
        super().__init__()
        if freeze_batchnorm not in get_args(Freeze):
            raise ModelError(
                f"model.freeze_batchnorm: unknown '{freeze_batchnorm}'; known: {', '.join(get_args(Freeze))}"
            )
        self.network = network
        self.in_channels = in_channels
        self.freeze_batchnorm = freeze_batchnorm
        self._only_head = False
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)
        if freeze_batchnorm == "all":
            for norm, _ in batchnorms(self):
                norm.requires_grad_(False)
        self.train(network.training)

    @property
    def feature_dim(self) -> int:
        """F, the channels of the last feature map."""
        return feature_dim(self.network)

    def train(self, mode: bool = True) -> Embedder:
        super().train(mode)
        if self._only_head or self.freeze_batchnorm != "none":
            for norm, clean in batchnorms(self):
                if clean or self._only_head or self.freeze_batchnorm != "clean":
                    norm.eval()
        return self

    @contextmanager
    def only_head(self) -> Iterator[None]:
        """Only the embedding layer learns meanwhile, and batch norms use and keep their statistics."""
        self._only_head = True
        try:
            with frozen(self, but=head_parameters(self.network)):
                yield
        finally:
            self._only_head = False
            self.train(self.training)

    def forward(self, images: Tensor) -> Tensor:
        x = (images - self.mean) / self.std
        if x.shape[1] != self.in_channels:
            x = x.expand(-1, self.in_channels, -1, -1)
        return F.normalize(self.network(x).to(self.mean.dtype), dim=-1)

    def outputs(self, images: Tensor, *, features: bool) -> tuple[Tensor, ...]:
        """One pass: ([B, D] of unit norm,), and where asked for [B, F, H, W], the last feature map."""
        return self.forward_with_features(images) if features else (self(images),)

    def forward_with_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """One pass: ([B, D] of unit norm, [B, F, H, W] of the last feature map), both with gradient.

        A hook fetches the features, so compile this method, not the network below it. Raises
        `ModelError` for a backbone that does not pool one feature map into its embedding.
        """
        pooling, maps = pooling_layer(self.network), []

        def keep(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            maps.append(inputs[0])

        if pooling is not None:
            hook = pooling.register_forward_pre_hook(keep)
            try:
                embeddings = self(images)
            finally:
                hook.remove()
            if len(maps) == 1 and maps[0].dim() == 4 and maps[0].shape[1] == self.feature_dim:
                return embeddings, maps[0].to(embeddings.dtype)
        raise ModelError(
            f"model.backbone: a {type(self.network).__name__} does not pool one feature map [B, F, H, W]; "
            "choose conv4, a torchvision ResNet, efficientnet_lite0, or a ResNet or EfficientNet of timm"
        )


@torch.no_grad()
def embed_images(model: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    """[B, C, H, W] in [0, 1] -> [B, D], on `device`, in the model's mode and routes."""
    embeddings: Tensor = model(images.to(device, memory_format=torch.channels_last))
    return embeddings
