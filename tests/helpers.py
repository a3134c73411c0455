"""What several tests build: reference numbers, a small network, a small store of images."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from mdprop.attacks import Threat
from mdprop.config.attacks import AdversarySettings, AttackSettings
from mdprop.config.schema import LearningRates, TrainSettings
from mdprop.data.stores.images import ImageStore, Row, write_store
from mdprop.layers import convert_batchnorm
from mdprop.methods import Method, Slice
from mdprop.models import Embedder
from mdprop.models.conv4 import Conv4

PROJECT = Path(__file__).parents[1]


def golden(name: str) -> dict[str, NDArray[np.generic]]:
    """Inputs and outputs of the authors' functions, from tests/golden/`name`.npz."""
    with np.load(PROJECT / "tests" / "golden" / f"{name}.npz") as arrays:
        return dict(arrays)


def randomize_norms(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give every batch norm weights and statistics of its own, so that no two are alike."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                if tensor is not None:
                    tensor.data.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    return network


def small_embedder(
    branches: tuple[str, ...] = ("clean",), dim: int = 6, channels: int = 1, seed: int = 0
) -> Embedder:
    """A narrow Conv4 for images of 16 pixels or more; each branch differs from the others."""
    torch.manual_seed(seed)
    network = Conv4(dim, channels, widths=(4, 4, 4, 4))
    if len(branches) > 1:
        convert_batchnorm(network, branches)
    randomize_norms(network, seed)
    return Embedder(network, [0.5] * channels, [0.25] * channels, channels)


def small_store(
    path: Path, classes: int = 4, images: int = 3, size: int = 16, mode: str = "L", seed: int = 0
) -> ImageStore:
    """A store of noisy stripes: a class has its own direction and width. Ids start at 100, labels at 10."""
    rng = np.random.default_rng(seed)
    grid = np.arange(size)

    def encode(kind: int) -> bytes:
        wave = np.sin(grid[:, None] * np.sin(kind) * 1.5 + grid[None] * np.cos(kind) * 1.5)
        shape = (size, size) if mode == "L" else (size, size, 3)
        stripes = wave if mode == "L" else wave[..., None]
        pixels = 127 + 70 * stripes + rng.normal(0, 20, shape)
        data = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(data, "PNG")
        return data.getvalue()

    rows = (
        Row(encode(c), 10 + c, f"class {c}", f"{c}/{i}.png", 100 + c * images + i)
        for c in range(classes)
        for i in range(images)
    )
    write_store(path, rows, mode)
    return ImageStore(path)


def attack_settings(**changes: Any) -> AttackSettings:
    """One step of 0.05 with a little noise at three targets, by mdprop's rules, but for the changes."""
    settings: dict[str, Any] = {
        "targets": 3,
        "epsilon": 0.05,
        "steps": 1,
        "start_noise": 0.01,
        "compatibility": "mdprop",
        "units": None,
        "clip": None,
        "target_kind": None,
        "batchnorm_start": None,
        "shared_forward": False,
    }
    return AttackSettings(**(settings | changes))


def adversary_settings(sets: Mapping[str, Threat], **changes: Any) -> AdversarySettings:
    """These attacks on all images through the clean branch, but for the changes."""
    values: dict[str, Any] = {
        "branches": ["clean"],
        "sources": sorted({threat.source for threat in sets.values() if threat.source}),
        "queries": 0,
        "draw": "images",
        "seed": 0,
        "epsilon": 0.1,
        "norm": "linf",
        "units": "pixel",
        "steps": 2,
        "step_ratio": None,
        "restarts": 1,
        "targets": 2,
        "start_noise": None,
        "optimizer": "pgd",
        "protocol": "mdprop",
        "sets": sets,
    }
    return AdversarySettings(**(values | changes))


def make_method(name: str, *slices: dict[str, Any]) -> Method:
    """A method with these adversarial slices, as params.yaml has them."""
    return Method.of(name, [Slice.model_validate(part) for part in slices])


def train_settings(**changes: Any) -> TrainSettings:
    """Two short epochs at a constant rate, but for the changes; learning_rates may name some groups only."""
    rates = dict.fromkeys(("head", "clean_batchnorm", "auxiliary_batchnorm", "loss"))
    settings: dict[str, Any] = {
        "epochs": 2,
        "head_epochs": 0,
        "batch_size": 8,
        "images_per_class": 2,
        "class_replacement": False,
        "learning_rate": 1e-2,
        "weight_decay": 1e-4,
        "schedule": "constant",
        "precision": "float32",
        "validate_every": 0,
    }
    settings |= changes
    settings["learning_rates"] = LearningRates(**(rates | settings.get("learning_rates", {})))
    return TrainSettings(**settings)
