from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from mdprop.data import transforms
from mdprop.data.transforms import apply_seeded, train_transform


def image(width: int = 24, height: int = 20, mode: str = "L", seed: int = 0) -> Image.Image:
    shape = (height, width) if mode == "L" else (height, width, 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3)])
def test_a_test_image_is_the_centre_in_the_unit_range(mode: str, channels: int) -> None:
    source = image(24, 20, mode)
    pixels = transforms.test_transform(20, 16)(source)
    assert pixels.shape == (channels, 16, 16)
    assert pixels.dtype == torch.float32
    expected = np.asarray(source).reshape(20, 24, channels)[2:18, 4:20].transpose(2, 0, 1) / 255
    assert np.array_equal(pixels.numpy(), expected.astype(np.float32))


def test_every_level_of_grey_is_kept() -> None:
    levels = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    pixels = transforms.test_transform(16, 16)(levels)
    assert (pixels.min(), pixels.max()) == (0, 1)
    assert torch.equal((pixels * 255).round().flatten(), torch.arange(256.0))


def test_another_short_side_is_resized_first() -> None:
    source = image(48, 40)
    resized = source.resize((24, 20), Image.Resampling.BICUBIC)
    assert torch.equal(transforms.test_transform(20, 16)(source), transforms.test_transform(20, 16)(resized))


@pytest.mark.parametrize("flip", [True, False])
def test_a_training_image_is_a_crop(flip: bool) -> None:
    transform = train_transform(12, (0.3, 0.9), flip)
    crops = torch.stack([apply_seeded(transform, image(), seed) for seed in range(30)])
    assert crops.shape == (30, 1, 12, 12)
    assert crops.min() >= 0
    assert crops.max() <= 1
    assert len({crop.numpy().tobytes() for crop in crops}) > 25


def test_the_share_of_the_area_is_kept_to() -> None:
    # On a ramp from left to right the range of the values tells how wide the crop was.
    ramp = Image.fromarray(np.tile(np.arange(0, 250, 2, dtype=np.uint8), (125, 1)))
    whole = train_transform(60, (1.0, 1.0), False)
    small = train_transform(60, (0.04, 0.05), False)
    for seed in range(10):
        full, part = apply_seeded(whole, ramp, seed), apply_seeded(small, ramp, seed)
        assert full.max() - full.min() > 0.75
        assert part.max() - part.min() < 0.3


def test_half_of_the_training_images_are_mirrored() -> None:
    ramp = Image.fromarray(np.tile(np.arange(0, 240, 10, dtype=np.uint8), (24, 1)))

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
