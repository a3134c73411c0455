"""The training loop: epochs, optimiser, schedule, validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mdprop.config.attacks import AttackSettings
from mdprop.config.schema import TrainSettings
from mdprop.data.loading.samplers import ClassBalancedSampler
from mdprop.data.loading.transforms import to_float
from mdprop.methods import Method
from mdprop.models import Embedder, parameter_groups
from mdprop.parallel.batchnorm import synchronize_batchnorm
from mdprop.parallel.exchange import share_gradients
from mdprop.runtime.progress import track
from mdprop.training.step import training_step


def train(
    model: Embedder,
    loss: nn.Module,
    method: Method,
    loader: DataLoader[tuple[Tensor, int]],
    settings: TrainSettings,
    attack: AttackSettings | None,
    seed: int,
    after_epoch: Callable[[int, Mapping[str, float]], None] = lambda epoch, values: None,
) -> Embedder:
    """Train `model` in place and return it, in eval mode; the last epoch's weights are kept.

    loader: batches by a `ClassBalancedSampler`, whose epoch is set here; with several processes,
        this one's rows of them.
    settings: epochs, rates, schedule ("constant", the authors', or "one_cycle", Smith and Topin 2019,
        with the rates as its peaks), weight decay and precision.
    attack: how examples are made; None for a method without any.
    seed: of targets and start noise, drawn from (seed, epoch).
    after_epoch: called with the number of epochs done and {"loss": mean of the epoch}.

    (The authors keep the epoch with the best Recall@1 on the test classes.)
    """
    sampler = loader.batch_sampler
    assert isinstance(sampler, ClassBalancedSampler)
    device = model.mean.device
    synchronize_batchnorm(model)
    groups = _optimizer_groups(model, loss, settings)
    optimizer = torch.optim.Adam(groups, fused=True)
    scheduler = None
    if settings.schedule == "one_cycle":
        peaks = [group["lr"] for group in groups]
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, peaks, settings.epochs * len(loader))
    for epoch in range(settings.epochs):
        sampler.epoch = epoch
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        total = torch.zeros((), device=device)
        for images, labels in track(loader, f"{method.name}, epoch {epoch + 1} of {settings.epochs}"):
            images = to_float(images.to(device, non_blocking=True, memory_format=torch.channels_last))
            value = training_step(model, loss, method, images, labels, attack, generator, settings.precision)
            optimizer.zero_grad()
            value.backward()
            share_gradients(model.parameters(), loss.parameters())
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            total += value.detach()
        after_epoch(epoch + 1, {"loss": total.item() / len(loader)})
    return model.eval()


def _optimizer_groups(model: Embedder, loss: nn.Module, settings: TrainSettings) -> list[dict[str, Any]]:
    """What Adam is given: the groups of the model's parameters, and the loss's own, without decay."""
    members = {**parameter_groups(model), "loss": list(loss.parameters())}
    rates = settings.learning_rates.model_dump()
    return [
        {
            "params": parameters,
            "lr": settings.learning_rate if rates.get(name) is None else rates[name],
            "weight_decay": 0.0 if name == "loss" else settings.weight_decay,
        }
        for name, parameters in members.items()
        if parameters
    ]
