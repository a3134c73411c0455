"""Metric losses, by name: `build_loss("multi_similarity", {"margin": 0.2}, embedding_dim=128, …)`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mdprop.errors import ParameterError
from mdprop.losses.arcface import ArcFaceLoss
from mdprop.losses.library import CLASS_LOSSES, MINERS, PAIR_LOSSES, Choice, MinedLoss
from mdprop.losses.multi_similarity import MultiSimilarityLoss
from mdprop.losses.options import NO_OPTIONS, construct, refusal
from mdprop.losses.s2sd import S2SDLoss

__all__ = ["LOSSES", "MINERS", "ArcFaceLoss", "MultiSimilarityLoss", "S2SDLoss", "build_loss"]


def build_loss(
    name: str,
    options: Mapping[str, Any] = NO_OPTIONS,
    *,
    miner: str | None = None,
    miner_options: Mapping[str, Any] = NO_OPTIONS,
    embedding_dim: int,
    num_classes: int,
    feature_dim: int,
) -> nn.Module:
    """The loss of that name, called as loss(embeddings [B, D], labels [B]) -> scalar.

    One with an attribute `takes_features` that is true, such as s2sd, is called as
    loss(embeddings, labels, features [B, F, H, W]).

    options: what differs from the loss's defaults.
    miner, miner_options: what picks the pairs or triplets; None: the loss uses all of them
        (multi_similarity: its own mining). In s2sd it serves the source, and the targets if they
        take one.
    embedding_dim, num_classes, feature_dim: D, the number of training classes (labels are 0 …
        num_classes − 1), and F.

    Loss and miner are tried on a small batch. Raises `ParameterError`, one line, for an unknown
    name or option, a value of the wrong type, a value that the loss or the miner refuses, and a
    miner for a loss that takes none.
    """
    if miner_options and miner is None:
        raise ParameterError("loss.miner_options are set and loss.miner is null; name a miner")
    embeddings, labels = _small_batch(embedding_dim, num_classes)
    picker = None
    if miner is not None:
        choice = _look_up("loss.miner", "miner", miner, MINERS)
        picker = construct("loss.miner_options", miner, choice, miner_options, {})
        _try("loss.miner_options", miner, miner_options, picker, embeddings, labels)
    sizes = {"embedding_dim": embedding_dim, "num_classes": num_classes, "feature_dim": feature_dim}
    loss = _build("loss.name", name, "loss.options", options, picker, sizes)
    features = (torch.ones(len(labels), feature_dim, 1, 1),) if getattr(loss, "takes_features", False) else ()
    _try("loss.options", name, options, loss.eval(), embeddings, labels, *features)
    return loss.train()


def _build(
    key: str,
    name: str,
    options_key: str,
    options: Mapping[str, Any],
    miner: nn.Module | None,
    sizes: Mapping[str, int],
) -> nn.Module:
    """The loss `name`, given by `key`, over what `miner` picks."""
    choice = _look_up(key, "loss", name, LOSSES)
    if miner is not None and not choice.mined:
        takers = ", ".join(taker for taker, other in LOSSES.items() if other.mined)
        raise ParameterError(f"loss.miner: {name} takes no miner; those that do: {takers}")

    def build_part(part: str, part_name: str, part_options: Mapping[str, Any], dim: int) -> nn.Module:
        part_key = f"{options_key}.{part}"
        if part_name == name:
            raise ParameterError(f"{part_key}: {name} cannot be a part of {name}")
        takes = part == "source" or _look_up(part_key, "loss", part_name, LOSSES).mined
        return _build(
            part_key,
            part_name,
            f"{part_key}_options",
            part_options,
            miner if takes else None,
            {**sizes, "embedding_dim": dim},
        )

    loss = construct(options_key, name, choice, options, {**sizes, "build_part": build_part})
    return loss if miner is None or isinstance(loss, S2SDLoss) else MinedLoss(loss, miner)


def _s2sd(
    build_part: Callable[[str, str, Mapping[str, Any], int], nn.Module],
    embedding_dim: int,
    feature_dim: int,
    source: str = "multi_similarity",
    source_options: Mapping[str, Any] = NO_OPTIONS,
    target: str = "multi_similarity",
    target_options: Mapping[str, Any] = NO_OPTIONS,
    target_dims: Sequence[int] = (512, 1024, 1536, 2048),
    temperature: float = 1.0,
    weight: float = 50.0,
    feature_weight: float = 50.0,
    feature_delay: int = 1000,
) -> S2SDLoss:
    """An `S2SDLoss` whose source and targets are losses by name."""
    return S2SDLoss(
        feature_dim,
        build_part("source", source, source_options, embedding_dim),
        [build_part("target", target, target_options, dim) for dim in target_dims],
        target_dims,
        temperature,
        weight,
        feature_weight,
        feature_delay,
    )


LOSSES: dict[str, Choice] = {
    "multi_similarity": Choice(MultiSimilarityLoss),
    "arcface": Choice(ArcFaceLoss, mined=False),
    "s2sd": Choice(_s2sd),
    **PAIR_LOSSES,
    **CLASS_LOSSES,
}


def _look_up(key: str, kind: str, name: str, table: Mapping[str, Choice]) -> Choice:
    if name not in table:
        raise ParameterError(f"{key}: unknown {kind} '{name}'; known: {', '.join(table)}")
    return table[name]


def _small_batch(embedding_dim: int, num_classes: int) -> tuple[Tensor, Tensor]:
    """Two embeddings of each of some classes."""
    labels = torch.arange(min(num_classes, 4)).repeat_interleave(2)
    generator = torch.Generator().manual_seed(0)
    return F.normalize(torch.randn(len(labels), embedding_dim, generator=generator)), labels


def _try(key: str, name: str, options: Mapping[str, Any], module: nn.Module, *batch: Tensor) -> None:
    """Meet now, and not in the first step of training, the values that only a batch shows to be wrong."""
    try:
        embeddings = batch[0].clone().requires_grad_()
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            value = module(embeddings, *batch[1:])
        if isinstance(value, Tensor) and not value.isfinite():
            raise ArithmeticError(f"the loss of a small batch is {value.item()}")
        if isinstance(value, Tensor) and value.requires_grad:
            gradient = torch.autograd.grad(value, embeddings, allow_unused=True)[0]
            if gradient is not None and not gradient.isfinite().all():
                raise ArithmeticError("the gradient of a small batch is not finite")
    except Exception as error:  # of any kind: it is the library's
        raise refusal(key, name, options, error) from error
