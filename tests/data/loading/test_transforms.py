from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from mdprop.data.loading import transforms
from mdprop.data.loading.transforms import apply_seeded, to_float, train_transform


def image(width: int = 24, height: int = 20, channels: int = 1, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (channels, height, width), generator=generator, dtype=torch.uint8)


def to_pillow(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy().squeeze())


def assert_near(image: Tensor, expected: Image.Image) -> None:
    """Both round after each direction, with weights of their own precision."""
    pixels = np.asarray(expected).reshape(*image.shape[1:], -1).transpose(2, 0, 1)
    difference = np.abs(image.numpy().astype(int) - pixels)
    assert difference.max() <= 2
    assert difference.mean() <= 0.4


@pytest.mark.parametrize("channels", [1, 3])
def test_a_test_image_is_the_centre(channels: int) -> None:
    source = image(24, 20, channels)
    pixels = transforms.test_transform(20, 16)(source)
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels, source[:, 2:18, 4:20])


def test_every_level_becomes_a_float_in_the_unit_range() -> None:
    floats = to_float(torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16))
    assert floats.shape == (1, 1, 16, 16)
    assert floats.dtype == torch.float32
    assert torch.equal(floats.flatten(), torch.arange(256.0) / 255)


def test_floats_keep_the_memory_format() -> None:
    images = image(channels=3)[None].contiguous(memory_format=torch.channels_last)
    assert to_float(images).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("channels", [1, 3])
def test_another_short_side_is_resized_first(channels: int) -> None:
    source = image(48, 40, channels)
    resized = to_pillow(source).resize((24, 20), Image.Resampling.BICUBIC)
    pixels = transforms.test_transform(20, 16)(source)
    assert_near(pixels, resized.crop((4, 2, 20, 18)))


@given(st.integers(0, 2**62), st.sampled_from([1, 3]), st.booleans())
def test_a_crop_is_nearly_pillows(seed: int, channels: int, flip: bool) -> None:
    source = image(67, 50, channels, seed % 1000)
    transform = train_transform(28, (0.08, 1.0), flip)
    expected = apply_seeded(transform, to_pillow(source), seed)
    assert_near(apply_seeded(transform, source, seed), expected)


@pytest.mark.parametrize("flip", [True, False])
def test_a_training_image_is_a_crop(flip: bool) -> None:
    transform = train_transform(12, (0.3, 0.9), flip)
    crops = torch.stack([apply_seeded(transform, image(), seed) for seed in range(30)])
    assert crops.shape == (30, 1, 12, 12)
    assert crops.dtype == torch.uint8
    assert len({crop.numpy().tobytes() for crop in crops}) > 25


def test_the_share_of_the_area_is_kept_to() -> None:
    # On a ramp from left to right the range of the values tells how wide the crop was.
    ramp = torch.arange(0, 250, 2, dtype=torch.uint8).expand(1, 125, 125)
    whole = train_transform(60, (1.0, 1.0), False)
    small = train_transform(60, (0.04, 0.05), False)
    for seed in range(10):
        full, part = (to_float(apply_seeded(transform, ramp, seed)) for transform in (whole, small))
        assert full.max() - full.min() > 0.75
        assert part.max() - part.min() < 0.3


def test_half_of_the_training_images_are_mirrored() -> None:
    ramp = torch.arange(0, 240, 10, dtype=torch.uint8).expand(1, 24, 24)

    def mirrored(flip: bool) -> int:
        transform = train_transform(12, (1.0, 1.0), flip)
        crops = [apply_seeded(transform, ramp, seed) for seed in range(200)]
        return sum(bool(crop[0, 6, 0] > crop[0, 6, -1]) for crop in crops)

    assert mirrored(False) == 0
    assert 70 < mirrored(True) < 130


def test_the_seed_alone_decides() -> None:
    transform = train_transform(12, (0.3, 0.9), True)
    results = []
    for state in range(3):
        torch.manual_seed(state)
        torch.rand(state)
        results.append(apply_seeded(transform, image(), 5))
    assert all(torch.equal(result, results[0]) for result in results)
    assert not torch.equal(apply_seeded(transform, image(), 6), results[0])


def test_the_global_generator_is_left_as_it_was() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    apply_seeded(train_transform(12, (0.3, 0.9), True), image(), 2**62 - 1)
    assert torch.equal(torch.rand(4), expected)


def test_the_global_generator_is_left_as_it_was_after_an_error() -> None:
    before = torch.random.get_rng_state()
    with pytest.raises(TypeError, match="No image"):
        apply_seeded(train_transform(12, (0.3, 0.9), True), None, 1)  # type: ignore[arg-type]
    assert torch.equal(torch.random.get_rng_state(), before)
