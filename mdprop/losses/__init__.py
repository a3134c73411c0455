"""Metric losses, by name: `build_loss("multi_similarity", {"margin": 0.1})`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from mdprop.errors import ParameterError
from mdprop.losses.multi_similarity import MultiSimilarityLoss

LOSSES: dict[str, type[nn.Module]] = {"multi_similarity": MultiSimilarityLoss}

__all__ = ["LOSSES", "MultiSimilarityLoss", "build_loss"]


def build_loss(name: str, options: Mapping[str, Any]) -> nn.Module:
    """The loss of that name. `ParameterError` lists the known names, or the options it takes."""
    if name not in LOSSES:
        raise ParameterError(f"loss.name: unknown loss '{name}'; known: {', '.join(LOSSES)}")
    known = inspect.signature(LOSSES[name]).parameters
    for option, value in options.items():
        if option not in known:
            raise ParameterError(f"loss.options: {name} has no option '{option}'; it has: {', '.join(known)}")
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ParameterError(f"loss.options.{option} = {value!r}: a number is needed")
    return LOSSES[name](**options)
