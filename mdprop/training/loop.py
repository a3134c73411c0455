"""The training loop: epochs, optimiser, schedule, validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mdprop.data.samplers import ClassBalancedSampler
from mdprop.distributions import Method
from mdprop.models import Embedder
from mdprop.runtime import track
from mdprop.training.step import TrainingAttack, training_step


def train(
    model: Embedder,
    loss: nn.Module,
    method: Method,
    loader: DataLoader[tuple[Tensor, int]],
    *,
    epochs: int,
    learning_rate: float,
    weight_decay: float,
    schedule: str,
    seed: int,
    attack: TrainingAttack | None = None,
    after_epoch: Callable[[int, Mapping[str, float]], None] = lambda epoch, values: None,
) -> Embedder:
    """Train `model` in place and return it, in eval mode; the last epoch's weights are kept.

    loader: batches by a `ClassBalancedSampler`, whose epoch is set here.
    schedule: "constant", the authors', or "one_cycle" (Smith and Topin 2019) with `learning_rate`
        as its peak.
    seed: of targets and start noise, drawn from (seed, epoch).
    attack: how examples are made; None for the method without any.
    after_epoch: called with the number of epochs done and {"loss": mean of the epoch}.

    (The authors keep the epoch with the best Recall@1 on the test classes.)
    """
    sampler = loader.batch_sampler
    assert isinstance(sampler, ClassBalancedSampler)
    device = model.mean.device
    optimizer = torch.optim.Adam(
        [*model.parameters(), *loss.parameters()], lr=learning_rate, weight_decay=weight_decay, fused=True
    )
    scheduler = None
    if schedule == "one_cycle":
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, epochs * len(loader))
    for epoch in range(epochs):
        sampler.epoch = epoch
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        total = torch.zeros((), device=device)
        for images, labels in track(loader, f"{method.name}, epoch {epoch + 1} of {epochs}"):
            images = images.to(device, non_blocking=True, memory_format=torch.channels_last)
            labels = labels.to(device, non_blocking=True)
            value = training_step(model, loss, method, images, labels, attack, generator)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            if scheduler is not None:
                scheduler.step()
            total += value.detach()
        after_epoch(epoch + 1, {"loss": total.item() / len(loader)})
    return model.eval()
