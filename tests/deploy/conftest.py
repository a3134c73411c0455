"""Trained models of the pipeline's shape, and folders of drawn photographs."""

from __future__ import annotations

from collections.abc import Sequence
from colorsys import hsv_to_rgb
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mdprop.deploy.agreement import generated_images
from mdprop.layers import route
from mdprop.models import Embedder, build_model, save_model
from mdprop.models.parts import batchnorms
from tests.helpers import randomize_norms

BRANCHES = ("clean", "multi_target")


def calibrate(model: Embedder, branches: Sequence[str], channels: int, size: int, seed: int) -> None:
    """Weights of its own for every batch norm, and statistics that keep the embeddings apart."""
    randomize_norms(model, seed)
    for norm, _ in batchnorms(model):
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches, which is one
    images = generated_images(channels, size, 32)
    with torch.no_grad():
        for branch in branches if len(branches) > 1 else ():
            with route(model.train(), branch):
                model(images)
        if len(branches) == 1:
            model.train()(images)
    model.eval()


def save_trained(
    folder: Path,
    backbone: str = "conv4",
    *,
    mode: str = "RGB",
    resize: int = 32,
    image_size: int = 28,
    encoding: str = "compressed",
    branches: Sequence[str] = BRANCHES,
    seed: int = 0,
) -> Path:
    """A network with random weights, saved as the stage of training saves one."""
    torch.manual_seed(seed)
    channels = len(mode.replace("L", "1").replace("RGB", "123"))
    mean, std = [0.4, 0.5, 0.6][:channels], [0.2, 0.25, 0.3][:channels]
    model = build_model(backbone, 8, branches=branches, mean=mean, std=std)
    calibrate(model, branches, channels, image_size, seed)
    images = {"mode": mode, "resize": resize, "image_size": image_size, "encoding": encoding, "flip": True}
    parameters: dict[str, Any] = {"dataset": {"name": "photos"}, "datasets": {"photos": images}}
    save_model(model, folder, backbone=backbone, embedding_dim=8, details={"parameters": parameters})
    return folder


def draw(seed: int, size: tuple[int, int] = (48, 37), kind: int = 0) -> Image.Image:
    """A scene in RGB: stripes in the hue and direction of its kind, 0 to 9, discs of any colour, grain."""
    rng = np.random.default_rng([kind, seed])
    colour = 255 * np.array([hsv_to_rgb(0.3 * kind % 1, 0.9, value) for value in (0.9, 0.4)])
    y, x = np.mgrid[: size[1], : size[0]]
    turn = 0.7 * np.pi * kind
    share = 0.5 + 0.5 * np.sin(0.5 * (x * np.cos(turn) + y * np.sin(turn)) + rng.uniform(0, 7))[..., None]
    pixels = colour[0] * share + colour[1] * (1 - share)
    for _ in range(4):
        middle, radius = rng.uniform(0, min(size), 2), rng.uniform(3, 9)
        pixels[np.hypot(x - middle[0], y - middle[1]) < radius] = rng.uniform(0, 255, 3)
    return Image.fromarray((pixels + rng.normal(0, 8, pixels.shape)).clip(0, 255).astype(np.uint8))


def draw_folder(root: Path, classes: int = 3, images: int = 4) -> Path:
    """root/<class>/<number>.jpg, .png: photographs of several sizes."""
    for kind in range(classes):
        folder = root / f"kind{kind}"
        folder.mkdir(parents=True)
        for number in range(images):
            size = (40 + 7 * number, 53 - 3 * kind)
            file = folder / f"{number}.{'png' if number % 2 else 'jpg'}"
            draw(number, size, kind).save(file, quality=90)
    return root


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model."""
    return save_trained(tmp_path_factory.mktemp("runs") / "mdprop" / "0")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_folder(tmp_path_factory.mktemp("photos"))
