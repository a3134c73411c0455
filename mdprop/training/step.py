"""One training step: attack the batch, then learn from clean and adversarial images together."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from mdprop.config.attacks import AttackSettings
from mdprop.layers import route
from mdprop.methods import Method
from mdprop.models import Embedder
from mdprop.parallel.rows import Part, batch_rows
from mdprop.training.examples import make_examples

Precision = Literal["float32", "bfloat16"]
"""What the network computes in."""


def training_step(
    model: Embedder,
    loss: nn.Module,
    method: Method,
    images: Tensor,
    labels: Tensor,
    attack: AttackSettings | None,
    generator: torch.Generator,
    precision: Precision = "float32",
) -> Tensor:
    """The loss of one batch (section 3.3 of the paper), ready for `backward`.

    images [B, C, H, W] in [0, 1], on the model's device; labels [B], on the CPU, where targets are
    drawn: a GPU is not waited for. One metric loss sees clean and adversarial embeddings together,
    so that pairs between them count; slices with a `pull` add that. NaN where an embedding is not finite.
    Leaves the model in train mode.
    loss: of (embeddings, labels), or with an attribute `takes_features` of (embeddings, labels, features).
    precision: "bfloat16": the network computes in it, in the attack and in training (autocast);
        weights, batch-norm statistics, pixels, embeddings and the loss stay float32.

    With several processes, images and labels are this one's `clean_rows` of the batch. The loss is
    that of the whole batch, the same in all; `share_gradients` after the backward pass.
    """
    rows = batch_rows(method, len(images))
    if rows.parts:
        if attack is None:
            raise ValueError(f"method '{method.name}' needs an attack")
        model.eval()
        with _computing(precision, images.device):
            examples, their_labels = make_examples(model, images, labels, rows, attack, generator)
        images, labels = torch.cat([images, examples]), torch.cat([labels, their_labels])
    model.train()
    with route(model, rows.routes), _computing(precision, images.device):
        outputs = model.outputs(images, features=getattr(loss, "takes_features", False))
    embeddings, *features = (rows.batch.together(output) for output in outputs)
    labels = rows.batch.together(labels).to(images.device, non_blocking=True)
    value: Tensor = loss(embeddings, labels, *features)
    for part in rows.parts:
        if part.settings.pull:
            value = value + part.settings.pull * _distance_to_clean(embeddings, part)
    # Mining finds no pairs among embeddings that are no numbers, and a loss without pairs is 0.
    return value.masked_fill(~embeddings.detach().isfinite().all(), torch.nan)


def _distance_to_clean(embeddings: Tensor, part: Part) -> Tensor:
    """The mean ‖f(x̃) − f(x)‖² of a slice's images, f(x) the embedding of the same image in the clean slice.

    embeddings: [B, D], of the whole batch. No gradient reaches f(x).
    """
    clean = embeddings.detach()[part.clean.to(embeddings.device, non_blocking=True)]
    return (embeddings[part.learned] - clean).square().sum(1).mean()


def _computing(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """One for the attack, one for training: weights that autocast caches without gradients have none."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()
