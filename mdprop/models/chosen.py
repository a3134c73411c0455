"""The network and the loss that params.yaml chooses."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from mdprop.config.schema import ImageSettings, LossSettings, ModelSettings
from mdprop.losses import build_loss
from mdprop.models.build import build_model
from mdprop.models.embedder import Embedder


def chosen_network(model: ModelSettings, images: ImageSettings, branches: Sequence[str]) -> Embedder:
    """The network with these batch-norm branches, as training begins; errors as in `build_model`."""
    return build_model(
        model.backbone,
        model.embedding_dim,
        weights=model.weights,
        freeze_batchnorm=model.freeze_batchnorm,
        auxiliary_momentum=model.auxiliary_momentum,
        branches=branches,
        mean=images.mean,
        std=images.std,
    )


def chosen_loss(loss: LossSettings, model: ModelSettings, network: Embedder, classes: int) -> nn.Module:
    """The loss on a network's embeddings of so many classes; errors as in `build_loss`."""
    return build_loss(
        loss.name,
        loss.options,
        miner=loss.miner,
        miner_options=loss.miner_options,
        embedding_dim=model.embedding_dim,
        num_classes=classes,
        feature_dim=network.feature_dim,
    )
