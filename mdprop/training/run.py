"""A training from prepared images to a trained model, as params.yaml describes it."""

from __future__ import annotations

import math
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
from mdprop.errors import ParameterError
from mdprop.layers import reset_statistics
from mdprop.methods import Method
from mdprop.metrics.geometry import COLLAPSED
from mdprop.models import Embedder, place
from mdprop.models.chosen import chosen_loss, chosen_network
from mdprop.parallel.rows import clean_rows
from mdprop.runtime.hardware import device, is_main, workers
from mdprop.runtime.provenance import provenance
from mdprop.runtime.state import State, computed_from, file_digest, say
from mdprop.training.loop import train
from mdprop.training.records import recorded
from mdprop.training.state import Keeper
from mdprop.training.validation import validate


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
    state: State,
) -> Embedder:
    """Train a method on `prepared`/train.arrow; curves go to `live`, Recall@1 on val.arrow among them.

    A line says when that ends below where it started.

    seed: of weights, batches, augmentation and attacks.
    attack: None for a method without adversarial slices.
    state: of this training, from which it goes on, and which it leaves complete.
    """
    store, validation = ImageStore(prepared / "train.arrow"), ImageStore(prepared / "val.arrow")
    loader = _batches(method, seed, store, images, settings)
    torch.manual_seed(seed)
    embedder = _start(method, model, images, attack)
    metric_loss = chosen_loss(loss, model, embedder, len(store.class_names)).to(device())
    name = f"training of {method.name}, seed {seed},"
    curve: dict[int, float] = {}
    with recorded(str(live)) as record:

        def show(epoch: int, values: Mapping[str, float]) -> None:
            record(epoch, values)
            if _VALIDATION in values:
                curve[epoch] = values[_VALIDATION]

        keeper = Keeper(state, show, provenance()["device"], name)
        after_epoch = _validated(embedder, validation, images, settings)
        train(
            embedder,
            metric_loss,
            method,
            loader,
            settings,
            attack,
            seed,
            after_epoch,
            before=lambda: after_epoch(0, {}),
            keeper=keeper,
        )
    if curve and is_main():
        _say_if_worse(name, curve, model, settings)
    return embedder


_VALIDATION = "validation/recall_at_1"


def _say_if_worse(
    name: str, curve: Mapping[int, float], model: ModelSettings, settings: TrainSettings
) -> None:
    """Say when Recall@1 of the validation classes ends below where it started."""
    start, end = curve[0], curve[settings.epochs]
    if end < start:
        kept = model.freeze_batchnorm in ("statistics", "all")
        epochs = f"{settings.epochs} epoch{'s' * (settings.epochs > 1)}"
        remedy = "" if kept else "model.freeze_batchnorm=statistics, or "
        say(
            f"{name} ends below its start: Recall@1 of the validation classes is {start:.1%} before and "
            f"{end:.1%} after {epochs}; try {remedy}a lower train.learning_rate "
            f'({settings.learning_rate:g}), see "When training makes it worse" in docs/guide.md',
            "warning",
        )


def identity(
    method: Method, seed: int, prepared: Path, *, model: ModelSettings, parameters: Mapping[str, object]
) -> dict[str, object]:
    """All that determines the result of `train_run`; parameters: those that the training reads."""
    weights = Path(model.weights or "").expanduser()
    libraries = [name for start, name in _LIBRARIES.items() if model.backbone.startswith(start)]
    return {
        "method": method.name,
        "seed": seed,
        "parameters": parameters,
        "weights": file_digest(weights) if weights.is_file() else None,
        **computed_from(prepared / "train.arrow", prepared / "val.arrow", libraries=libraries),
    }


_LIBRARIES = {"timm:": "timm", "efficientnet_lite0": "efficientnet-lite-pytorch"}


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
    embedder = chosen_network(model, images, method.branches)
    if attack is not None and attack.rule("batchnorm_start") == "reset":
        reset_statistics(embedder, but=CLEAN)
    return place(embedder, device())


def _validated(
    model: nn.Module, store: ImageStore, images: ImageSettings, settings: TrainSettings
) -> Callable[[int, Mapping[str, float]], dict[str, float]]:
    """A function that gives an epoch's curves, every so often with Recall@1 on the validation classes.

    It raises `ParameterError` for embeddings that are not finite, and says once that they are all alike.
    """
    every = settings.validate_every if len(store) else 0
    transform = test_transform(images.resize, images.image_size)
    said = False

    def after_epoch(epoch: int, values: Mapping[str, float]) -> dict[str, float]:
        nonlocal said
        curves = {f"train/{name}": value for name, value in values.items()}
        if every and (epoch % every == 0 or epoch == settings.epochs):
            found = validate(model, store, transform, device())
            if not math.isfinite(found.spread):
                raise ParameterError(_not_finite(epoch, settings))
            if epoch and found.spread < COLLAPSED and not said and is_main():
                said = True
                say(
                    f"embeddings have collapsed after epoch {epoch}: two validation images are "
                    f"{found.spread:.2g} apart (mean cosine distance; below {COLLAPSED:g} all are alike); "
                    f"lower train.learning_rate ({settings.learning_rate:g}), or check loss.options",
                    "warning",
                )
            curves[_VALIDATION] = found.recall_at_1
        return curves

    return after_epoch


def _not_finite(epoch: int, settings: TrainSettings) -> str:
    what = "embeddings of validation images are not finite"
    if not epoch:
        return f"{what} before the first epoch; choose other model.weights, or another model.backbone"
    remedy = f"lower train.learning_rate ({settings.learning_rate:g})"
    return f"training diverged: {what} after epoch {epoch}; {remedy}"
