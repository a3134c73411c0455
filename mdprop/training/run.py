"""A training from prepared images to a trained model, as params.yaml describes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mdprop.branches import CLEAN
from mdprop.config.attacks import AttackSettings
from mdprop.config.schema import ImageSettings, LossSettings, ModelSettings, TrainSettings
from mdprop.data.loading.datasets import TrainImages, train_loader
from mdprop.data.loading.samplers import ClassBalancedSampler
from mdprop.data.loading.transforms import test_transform, train_transform
from mdprop.data.stores.images import ImageStore
from mdprop.layers import reset_statistics
from mdprop.losses import build_loss
from mdprop.methods import Method
from mdprop.models import Embedder, build_model, place
from mdprop.parallel.rows import clean_rows
from mdprop.runtime.hardware import device, workers
from mdprop.training.loop import train
from mdprop.training.records import Record, recorded
from mdprop.training.validation import recall_at_1


def train_run(
    method: Method,
    seed: int,
    prepared: Path,
    live: Path,
    *,
    images: ImageSettings,
    model: ModelSettings,
    loss: LossSettings,
    settings: TrainSettings,
    attack: AttackSettings | None,
) -> Embedder:
    """Train a method on `prepared`/train.arrow; curves go to `live`, Recall@1 on val.arrow among them.

    seed: of weights, batches, augmentation and attacks.
    attack: None for a method without adversarial slices.
    """
    store, validation = ImageStore(prepared / "train.arrow"), ImageStore(prepared / "val.arrow")
    loader = _batches(method, seed, store, images, settings)
    torch.manual_seed(seed)
    embedder = _start(method, model, images, attack)
    metric_loss = build_loss(
        loss.name,
        loss.options,
        miner=loss.miner,
        miner_options=loss.miner_options,
        embedding_dim=model.embedding_dim,
        num_classes=len(store.class_names),
        feature_dim=embedder.feature_dim,
    ).to(device())
    with recorded(str(live)) as record:
        after_epoch = _validated(record, embedder, validation, images, settings)
        return train(embedder, metric_loss, method, loader, settings, attack, seed, after_epoch)


def _batches(
    method: Method, seed: int, store: ImageStore, images: ImageSettings, settings: TrainSettings
) -> DataLoader[tuple[Tensor, int]]:
    """This process's part of each batch."""
    sampler = ClassBalancedSampler(
        store.labels,
        settings.batch_size,
        settings.images_per_class,
        seed,
        replacement=settings.class_replacement,
        places=clean_rows(method, settings.batch_size),
    )
    transform = train_transform(images.image_size, images.crop_scale, images.flip)
    return train_loader(TrainImages(store, transform), sampler, workers())


def _start(
    method: Method, model: ModelSettings, images: ImageSettings, attack: AttackSettings | None
) -> Embedder:
    """The network as training begins, on the device."""
    embedder = build_model(
        model.backbone,
        model.embedding_dim,
        weights=model.weights,
        freeze_batchnorm=model.freeze_batchnorm,
        branches=method.branches,
        mean=images.mean,
        std=images.std,
    )
    if attack is not None and attack.rule("batchnorm_start") == "reset":
        reset_statistics(embedder, but=CLEAN)
    return place(embedder, device())


def _validated(
    record: Record, model: nn.Module, store: ImageStore, images: ImageSettings, settings: TrainSettings
) -> Callable[[int, Mapping[str, float]], None]:
    """A function that records an epoch, every so often with Recall@1 on the validation classes."""
    every = settings.validate_every if len(store) else 0
    transform = test_transform(images.resize, images.image_size)

    def after_epoch(epoch: int, values: Mapping[str, float]) -> None:
        curves = {f"train/{name}": value for name, value in values.items()}
        if every and (epoch % every == 0 or epoch == settings.epochs):
            curves["validation/recall_at_1"] = recall_at_1(model, store, transform, device())
        record(epoch, curves)

    return after_epoch
