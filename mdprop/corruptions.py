"""Common corruptions of images: what a camera, the weather or a file format does, with no one attacking.

After ImageNet-C (Hendrycks and Dietterich, ICLR 2019, arXiv 1903.12261): its strengths, without its
corruptions that need photographs (frost), snow, elastic, glass and zoom.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from mdprop.errors import ParameterError
from mdprop.settings import Section

if TYPE_CHECKING:
    from torch import Tensor

SIDE = 224
"""Of the images that strengths in pixels are for; they grow and shrink with the longer side."""

SEVERITIES = (1, 2, 3, 4, 5)

Severity = Annotated[int, Field(ge=SEVERITIES[0], le=SEVERITIES[-1])]


class CorruptionSettings(Section):
    """Which corrupted versions of the queries are measured; no kinds: none."""

    kinds: tuple[str, ...] = Field(strict=False)
    severities: tuple[Severity, ...] = Field(strict=False, min_length=1)

    @field_validator("kinds")
    @classmethod
    def _known(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        for kind in kinds:
            if kind not in CORRUPTIONS:
                raise ValueError(f"unknown kind '{kind}'; known: {', '.join(CORRUPTIONS)}")
        return kinds

    @field_validator("kinds", "severities")
    @classmethod
    def _each_once(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) != len(values):
            raise ValueError("names one twice")
        return values

    @property
    def sets(self) -> dict[str, tuple[str, int]]:
        """Kind and severity of each input set by its name, such as `fog_3`, in the order of `CORRUPTIONS`."""
        kinds = [kind for kind in CORRUPTIONS if kind in self.kinds]
        return {f"{kind}_{s}": (kind, s) for kind in kinds for s in sorted(self.severities)}


def parse_set(name: str) -> tuple[str, int] | None:
    """Kind and severity of a corrupted set, by its name; None for any other set."""
    kind, _, severity = name.rpartition("_")
    known = kind in CORRUPTIONS and severity in map(str, SEVERITIES)
    return (kind, int(severity)) if known else None


def corrupt(
    images: Tensor, ids: Sequence[int] | NDArray[np.int64], kind: str, severity: int, seed: int
) -> Tensor:
    """Images after one corruption, cut to [0, 1]: of the shape, type and device of `images`.

    images: float [B, C, H, W] or [C, H, W] in [0, 1], of one or three channels; ids: [B] numbers from 0, or
    one. kind: a name of `CORRUPTIONS`; severity: 1 to 5. What is left to chance follows from (seed, id,
    kind, severity), whatever else is in the batch; computed in float32 on the CPU.

    Raises `ParameterError` for an unknown kind or severity, `ValueError` for other images and ids.
    """
    import torch

    if kind not in CORRUPTIONS:
        raise ParameterError(f"unknown corruption '{kind}'; known: {', '.join(CORRUPTIONS)}")
    if severity not in SEVERITIES:
        raise ParameterError(f"severity {severity!r} of {kind} must be a whole number from 1 to 5")
    if not images.is_floating_point() or images.ndim not in (3, 4) or images.shape[-3] not in (1, 3):
        shape = f"{images.dtype} {list(images.shape)}"
        raise ValueError(f"images must be float [B, C, H, W] or [C, H, W] of 1 or 3 channels, not {shape}")
    batch = images.detach().reshape(-1, *images.shape[-3:]).float().cpu()
    if len(ids) != len(batch):
        raise ValueError(f"there are {len(ids)} ids for {len(batch)} images")
    if not len(batch):
        return images.clone()
    chosen = CORRUPTIONS[kind]
    strength, name = chosen.strengths[severity - 1], zlib.crc32(kind.encode())
    changed = [
        chosen.apply(image, np.random.default_rng([seed, int(i), name, severity]), *strength).clamp(0, 1)
        for i, image in zip(ids, batch, strict=True)
    ]
    return torch.stack(changed).reshape(images.shape).to(images)


def _normal(image: Tensor, chance: np.random.Generator, deviation: float) -> Tensor:
    """Gaussian noise of that standard deviation on every component."""
    import torch

    return image + deviation * torch.from_numpy(chance.standard_normal(image.shape, dtype=np.float32))


def _shot(image: Tensor, chance: np.random.Generator, photons: float) -> Tensor:
    """Poisson noise of a sensor that counts so many photons where a component is 1."""
    import torch

    return torch.from_numpy(chance.poisson(photons * image.numpy()).astype(np.float32)) / photons


def _impulse(image: Tensor, chance: np.random.Generator, share: float) -> Tensor:
    """Salt and pepper: that share of the components becomes 0 or 1."""
    import torch

    drawn = torch.from_numpy(chance.random(image.shape, dtype=np.float32))
    return image.where(drawn >= share, (drawn >= share / 2).float())


def _defocus(image: Tensor, chance: np.random.Generator, radius: float) -> Tensor:
    """The mean over a disk of that radius in pixels of `SIDE`."""
    grid = np.linspace(-1, 1, 65)
    y, x = (axis.ravel() for axis in np.meshgrid(grid, grid))
    inside = np.hypot(x, y) <= 1
    offsets = np.stack([y, x], axis=1)[inside] * radius * max(image.shape[1:]) / SIDE
    return _shifted(image, offsets, np.ones(len(offsets)))


def _motion(image: Tensor, chance: np.random.Generator, radius: float, deviation: float) -> Tensor:
    """The image drawn out to one side, at up to 45 degrees; the tail of a Gaussian of that standard
    deviation, 2 `radius` long, both in pixels of `SIDE`."""
    angle = chance.uniform(-math.pi / 4, math.pi / 4)
    way = np.linspace(0, 2 * radius, 257)
    offsets = way[:, None] * [math.sin(angle), math.cos(angle)] * max(image.shape[1:]) / SIDE
    return _shifted(image, offsets, np.exp(-0.5 * np.square(way / deviation)))


def _shifted(image: Tensor, offsets: NDArray[np.float64], weights: NDArray[np.float64]) -> Tensor:
    """The mean of copies of an image, shifted by `offsets` [N, 2] in pixels (bilinear), by weight [N].

    Pixels beyond an edge are as the nearest one at it.
    """
    import torch
    from torch.nn.functional import conv2d, pad

    whole = np.floor(offsets).astype(int)
    part = offsets - whole
    low, high = np.minimum(whole.min(0), 0), np.maximum(whole.max(0) + 1, 0)
    kernel = np.zeros(high - low + 1)
    for down in (0, 1):
        for right in (0, 1):
            shares = np.abs(1 - down - part[:, 0]) * np.abs(1 - right - part[:, 1])
            np.add.at(kernel, tuple((whole - low + [down, right]).T), weights * shares)
    edges = [int(edge) for edge in (-low[1], high[1], -low[0], high[0])]
    padded = pad(image[:, None], edges, mode="replicate")
    return conv2d(padded, torch.from_numpy(kernel / kernel.sum()).float()[None, None])[:, 0]


def _fog(image: Tensor, chance: np.random.Generator, amount: float) -> Tensor:
    """A light cloud on top, scaled back to the range of the image.

    The cloud is fractal noise: grids of 2, 4, ... cells, each of a third of the amplitude of the one before.
    """
    import torch
    from torch.nn.functional import interpolate

    height, width = image.shape[1:]
    cloud = torch.zeros(height, width)
    for level in range(1, 1 + math.ceil(math.log2(max(2, height, width)))):
        points = 2**level + 1
        drawn = torch.from_numpy(chance.uniform(-1, 1, (1, 1, points, points)).astype(np.float32))
        cloud += interpolate(drawn, (height, width), mode="bilinear", align_corners=True)[0, 0] / 3**level
    cloud = (cloud - cloud.min()) / (cloud.max() - cloud.min()).clamp(min=torch.finfo(cloud.dtype).tiny)
    most = image.max()
    return (image + amount * cloud) * most / (most + amount)


def _brightness(image: Tensor, chance: np.random.Generator, amount: float) -> Tensor:
    """Value of HSV raised by that amount; hue and saturation stay."""
    value = image.amax(0, keepdim=True)
    raised = (value + amount).clamp(max=1)
    return (image * raised / value).where(value > 0, raised)


def _contrast(image: Tensor, chance: np.random.Generator, kept: float) -> Tensor:
    """The difference from the mean of the channel, of which so much is kept."""
    mean = image.mean((1, 2), keepdim=True)
    return mean + kept * (image - mean)


def _jpeg(image: Tensor, chance: np.random.Generator, quality: int) -> Tensor:
    """8 bits, and a JPEG file of that quality."""
    import torch
    from PIL import Image

    pixels = (255 * image).round().byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels if len(image) == 3 else pixels[..., 0]).save(file, "JPEG", quality=quality)
    with Image.open(file) as opened:
        read = np.array(opened, dtype=np.float32).reshape(pixels.shape)
    return torch.from_numpy(read).permute(2, 0, 1) / 255


def _pixelate(image: Tensor, chance: np.random.Generator, share: float) -> Tensor:
    """Blocks: the image scaled down to that share of its sides and up again, each by the mean over areas."""
    for rows in (True, False):
        side = image.shape[1 if rows else 2]
        blocks = max(1, int(share * side))
        there_and_back = _areas(blocks, side) @ _areas(side, blocks)
        image = there_and_back @ image if rows else image @ there_and_back.T
    return image


def _areas(old: int, new: int) -> Tensor:
    """[new, old]: of each of `new` equal parts of a line, the share that lies in each of `old` ones."""
    import torch

    before, after = np.linspace(0, 1, old + 1), np.linspace(0, 1, new + 1)[:, None]
    overlap = np.minimum(before[1:], after[1:]) - np.maximum(before[:-1], after[:-1])
    return torch.from_numpy((new * overlap.clip(0)).astype(np.float32))


@dataclass(frozen=True)
class Corruption:
    """family: of kinds alike. strengths: the numbers that `apply` takes at each severity.

    apply: a function of one float32 image [C, H, W], its own source of chance and the strength.
    """

    family: str
    apply: Callable[..., Tensor]
    strengths: Sequence[tuple[float, ...]]


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": Corruption("noise", _normal, [(0.08,), (0.12,), (0.18,), (0.26,), (0.38,)]),
    "shot_noise": Corruption("noise", _shot, [(60,), (25,), (12,), (5,), (3,)]),
    "impulse_noise": Corruption("noise", _impulse, [(0.03,), (0.06,), (0.09,), (0.17,), (0.27,)]),
    "defocus_blur": Corruption("blur", _defocus, [(3,), (4,), (6,), (8,), (10,)]),
    "motion_blur": Corruption("blur", _motion, [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)]),
    "fog": Corruption("weather", _fog, [(1.5,), (2,), (2.5,), (2.75,), (3,)]),
    "brightness": Corruption("weather", _brightness, [(0.1,), (0.2,), (0.3,), (0.4,), (0.5,)]),
    "contrast": Corruption("digital", _contrast, [(0.4,), (0.3,), (0.2,), (0.1,), (0.05,)]),
    "jpeg": Corruption("digital", _jpeg, [(25,), (18,), (15,), (10,), (7,)]),
    "pixelate": Corruption("digital", _pixelate, [(0.6,), (0.5,), (0.4,), (0.3,), (0.25,)]),
}
"""By kind. Another one is a function and a line here."""
