"""The training loop: epochs, optimiser, schedule, validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from mdprop.config.attacks import AttackSettings
from mdprop.config.schema import TrainSettings
from mdprop.data.loading.datasets import TrainBatches
from mdprop.data.loading.samplers import ClassBalancedSampler
from mdprop.data.loading.transforms import to_float
from mdprop.methods import Method
from mdprop.models import Embedder, parameter_groups
from mdprop.parallel.batchnorm import synchronize_batchnorm
from mdprop.parallel.exchange import share_gradients
from mdprop.runtime.progress import track
from mdprop.training.state import Keeper, Progress
from mdprop.training.step import training_step


def train(
    model: Embedder,
    loss: nn.Module,
    method: Method,
    loader: TrainBatches,
    settings: TrainSettings,
    attack: AttackSettings | None,
    seed: int,
    after_epoch: Callable[[int, Mapping[str, float]], Mapping[str, float]] = lambda epoch, values: values,
    before: Callable[[], Mapping[str, float]] = dict,
    keeper: Keeper | None = None,
) -> Embedder:
    """Train `model` in place and return it, in eval mode; the last epoch's weights are kept.

    No epochs leave it as it starts.

    loader: batches, of any sizes; those of a `ClassBalancedSampler` have their epoch set here. With
        several processes, this one's rows of them.
    settings: epochs, rates, schedule ("constant", the authors', or "one_cycle", Smith and Topin 2019,
        with the rates as its peaks; a single step has the peaks), weight decay and precision. In the
        first `head_epochs` only the embedding layer and the loss learn, and no statistics move.
    attack: how examples are made; None for a method without any.
    seed: of targets and start noise, drawn from (seed, epoch).
    after_epoch: called with the number of epochs done and {"loss": mean of the epoch}; returns the
        values that the epoch's curves show.
    before: called before the first epoch, for the values that the curves show at 0. It may not move the
        model; the generators are put back to where they were.
    keeper: of the state, from which the training goes on where it was interrupted; for batches of a
        `ClassBalancedSampler`, which can be drawn again.

    Raises `ParameterError` for a loss or a weight that is not finite, which is looked for after each
    epoch, and when a state is written.

    (The authors keep the epoch with the best Recall@1 on the test classes.)
    """
    sampler = getattr(loader, "batch_sampler", None)
    drawn = sampler if isinstance(sampler, ClassBalancedSampler) else None
    if keeper is not None and drawn is None:
        raise ValueError("a training whose state is kept needs the batches of a ClassBalancedSampler")
    device = model.mean.device
    synchronize_batchnorm(model)
    progress = _start(model, loss, settings, len(loader), device)
    if keeper is not None:
        keeper.resume(progress)
    if not progress.curves:
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            progress.curves.append(dict(before()))
        if keeper is not None:
            keeper.before(progress)
    while progress.epoch < settings.epochs:
        if drawn is not None:
            drawn.epoch, drawn.first = progress.epoch, progress.step
        if not progress.step:
            progress.generator.manual_seed(seed * 1_000_003 + progress.epoch)
        with model.only_head() if progress.epoch < settings.head_epochs else nullcontext():
            _finish_epoch(progress, model, method, loader, attack, keeper)
        mean = progress.mean_loss()
        progress.curves.append(dict(after_epoch(progress.epoch + 1, {"loss": mean})))
        progress.epoch, progress.step = progress.epoch + 1, 0
        if keeper is not None:
            keeper.after_epoch(progress)
    return model.eval()


def _finish_epoch(
    progress: Progress,
    model: Embedder,
    method: Method,
    loader: TrainBatches,
    attack: AttackSettings | None,
    keeper: Keeper | None,
) -> None:
    """The steps of an epoch that are not done."""
    settings, loss, device = progress.settings, progress.loss, progress.losses.device
    shown = f"{method.name}, epoch {progress.epoch + 1} of {settings.epochs}"
    for images, labels in track(progress.begin(loader), shown, len(loader) - progress.step, "steps"):
        images = to_float(images.to(device, non_blocking=True, memory_format=torch.channels_last))
        value = training_step(
            model, loss, method, images, labels, attack, progress.generator, settings.precision
        )
        progress.optimizer.zero_grad()
        value.backward()
        share_gradients(model.parameters(), loss.parameters())
        progress.optimizer.step()
        if progress.scheduler is not None:
            progress.scheduler.step()
        progress.losses[progress.step] = value.detach()
        progress.step += 1
        if keeper is not None:
            keeper.after_step(progress)


def _start(
    model: Embedder, loss: nn.Module, settings: TrainSettings, steps: int, device: torch.device
) -> Progress:
    """A training before its first step; steps: of an epoch."""
    groups = _optimizer_groups(model, loss, settings)
    optimizer = torch.optim.Adam(groups, fused=True)
    scheduler = None
    if settings.schedule == "one_cycle" and settings.epochs * steps > 1:  # one step has no way up and down
        peaks = [group["lr"] for group in groups]
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, peaks, settings.epochs * steps)
    losses = torch.zeros(steps, device=device)
    return Progress(settings, model, loss, optimizer, scheduler, losses, torch.Generator())


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
