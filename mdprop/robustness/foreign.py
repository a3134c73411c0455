"""Networks from elsewhere, as attacks and evaluation know one."""

from __future__ import annotations

import importlib
import textwrap
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import mdprop
from mdprop.errors import ModelError, one_line
from mdprop.models import Embedder
from mdprop.models.parts import frozen

LEAST_DIM = 3
"""Of embeddings: the decay of the spectrum leaves out two singular values."""


class ForeignEmbedder(Embedder):
    """A network that is none of ours: [B, C, H, W] in [0, 1] -> [B, D] of unit norm.

    mean, std: of the images' channels. Radii in standard deviations are in these; with `normalize` the
        network takes images that are normalised by them, else pixels in [0, 1].
    name: in messages.

    Raises `ModelError`, one line, where the network fails or returns anything but floats [B, D].
    """

    def __init__(
        self, network: nn.Module, mean: Sequence[float], std: Sequence[float], *, normalize: bool, name: str
    ) -> None:
        super().__init__(network, mean, std, in_channels=len(mean))
        self.normalize, self.name = normalize, name

    def forward(self, images: Tensor) -> Tensor:
        x = (images - self.mean) / self.std if self.normalize else images
        try:
            found: Any = self.network(x.contiguous())
        except Exception as error:  # it is not our code
            raise ModelError(f"{self.name} fails on images {list(images.shape)}: {reason(error)}") from None
        if not isinstance(found, Tensor):
            given = f"a {type(found).__name__}"
        elif found.ndim != 2 or len(found) != len(images) or found.shape[1] < LEAST_DIM:
            given = str(list(found.shape))
        elif not found.is_floating_point():
            given = f"numbers of {found.dtype}"
        else:
            return F.normalize(found.to(self.mean.dtype), dim=-1)
        raise ModelError(
            f"{self.name} returns {given} for images {list(images.shape)}: embeddings [{len(images)}, D] are "
            f"needed, one tensor of floats, D {LEAST_DIM} or more"
        )


def probe(model: nn.Module, name: str, images: Tensor, *, gradients: bool) -> None:
    """Try a network in eval mode on images [B, C, H, W] in [0, 1]: two of them, one, and all.

    gradients: whether those of the pixels are needed, too; they may be 0.

    Raises `ModelError` where the network fails or returns something else than finite embeddings, has no
    gradient, or changes its parameters or buffers meanwhile.
    """
    before = {key: value.detach().clone() for key, value in _numbers(model).items()}
    pixels = images[:2].clone().requires_grad_(gradients)
    with frozen(model):
        embeddings = model(pixels)
        if gradients:
            _differentiate(embeddings, pixels, name)
        with torch.no_grad():
            found = [embeddings, model(images[:1]), model(images)]
    if not all(bool(part.isfinite().all()) for part in found):
        raise ModelError(f"{name} returns embeddings that are not finite (NaN or infinite) for clean images")
    after = _numbers(model)
    changed = [key for key, value in before.items() if not torch.equal(value, after[key])]
    if changed:
        raise ModelError(
            f"{name} changes while it embeds in eval mode ({len(changed)} parameters and buffers, such as "
            f"'{changed[0]}'): it must stand still; call eval() before exporting it"
        )


def _differentiate(embeddings: Tensor, pixels: Tensor, name: str) -> None:
    problem, gradient = "its embeddings are computed apart from them (torch.no_grad, detach, numpy)", None
    if embeddings.requires_grad:
        try:
            (gradient,) = torch.autograd.grad(embeddings.sum(), pixels, allow_unused=True)
        except (RuntimeError, NotImplementedError) as error:
            problem = reason(error)
    if gradient is None:
        raise ModelError(f"{name} has no gradient of its pixels, which pgd and apgd follow: {problem}")


def _numbers(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers; those that a module replaces, too, as they go by name."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def reason(error: Exception) -> str:
    """An error of others' code in one line: its kind, its text and where it was raised."""
    files = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    theirs = [place for place in files if place[0].is_file() and not _is_ours(place[0])]
    where = " ({}, line {})".format(*theirs[-1]) if theirs else ""
    return f"{type(error).__name__}: {textwrap.shorten(one_line(error), 300, placeholder=' ...')}{where}"


def _is_ours(file: Path) -> bool:
    """Whether it is of this package, or of the machinery of imports."""
    return any(file.is_relative_to(Path(path).parent) for path in (mdprop.__file__, importlib.__file__))
