from __future__ import annotations

import colorsys
import io
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from scipy.ndimage import map_coordinates
from torch import Tensor

from mdprop.corruptions import CORRUPTIONS, SEVERITIES, CorruptionSettings, corrupt
from mdprop.errors import ParameterError

DRAWN = ("gaussian_noise", "shot_noise", "impulse_noise", "motion_blur", "fog")


def pictures(count: int, channels: int, height: int, width: int | None = None, seed: int = 0) -> Tensor:
    """Smooth random images with a little texture, over most of the range."""
    generator = torch.Generator().manual_seed(seed)
    width = width or height
    coarse = torch.rand(count, channels, 8, 8, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return (smooth + 0.1 * torch.rand(smooth.shape, generator=generator)).clamp(0, 1)


def flat(value: float, channels: int = 1, side: int = 64) -> Tensor:
    return torch.full((1, channels, side, side), value)


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [28, 96])
def test_the_distance_from_the_clean_images_grows_with_the_severity(
    kind: str, channels: int, side: int
) -> None:
    images = pictures(40, channels, side)
    distances = [
        float((corrupt(images, range(40), kind, severity, 0) - images).flatten(1).norm(dim=1).mean())
        for severity in SEVERITIES
    ]
    assert distances[0] > 0.005 * (channels * side * side) ** 0.5
    assert all(nearer < farther for nearer, farther in pairwise(distances)), distances


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_becomes_the_same_in_any_batch(kind: str, channels: int) -> None:
    images = pictures(5, channels, 20, 31)
    ids = np.array([7, 0, 123456789, 3, 5])
    together = corrupt(images, ids, kind, 3, 11)
    assert together.shape == images.shape
    assert together.min() >= 0 and together.max() <= 1
    order = [3, 1, 4]
    assert torch.equal(corrupt(images[order], ids[order], kind, 3, 11), together[order])
    assert torch.equal(corrupt(images[2], [123456789], kind, 3, 11), together[2])


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_chance_follows_from_seed_id_kind_and_severity(kind: str) -> None:
    image = pictures(1, 1, 24)
    found = corrupt(image.repeat(2, 1, 1, 1), [1, 2], kind, 2, 0)
    assert torch.equal(found[0], found[1]) == (kind not in DRAWN)
    assert torch.equal(found[:1], corrupt(image, [1], kind, 2, 1)) == (kind not in DRAWN)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_images_keep_their_type_and_are_left_alone(kind: str) -> None:
    images = pictures(2, 3, 16).double()
    before = images.clone()
    changed = corrupt(images, [0, 1], kind, 5, 0)
    assert changed.dtype == torch.float64
    assert torch.equal(images, before)
    assert corrupt(images[:0], [], kind, 1, 0).shape == (0, 3, 16, 16)


@pytest.mark.parametrize("kind", CORRUPTIONS)
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("size", [(1, 1), (3, 40)])
def test_plain_and_tiny_images_stay_finite_and_in_range(
    kind: str, value: float, size: tuple[int, int]
) -> None:
    image = torch.full((1, 3, *size), value)
    for severity in SEVERITIES:
        changed = corrupt(image, [0], kind, severity, 0)
        assert torch.isfinite(changed).all() and changed.min() >= 0 and changed.max() <= 1


def test_gaussian_noise_has_its_standard_deviation() -> None:
    noise = corrupt(flat(0.5, side=200), [0], "gaussian_noise", 1, 0) - 0.5
    assert noise.std().item() == pytest.approx(0.08, rel=0.02)
    assert noise.mean().item() == pytest.approx(0, abs=0.002)


def test_shot_noise_has_the_variance_of_a_poisson_variable() -> None:
    for value in (0.2, 0.6):
        noise = corrupt(flat(value, side=200), [0], "shot_noise", 1, 0) - value
        assert noise.var().item() == pytest.approx(value / 60, rel=0.05)


def test_impulses_are_half_salt_and_half_pepper() -> None:
    changed = corrupt(flat(0.5, side=200), [0], "impulse_noise", 5, 0)
    assert (changed == 1).float().mean().item() == pytest.approx(0.135, abs=0.007)
    assert (changed == 0).float().mean().item() == pytest.approx(0.135, abs=0.007)
    assert ((changed == 0.5) | (changed == 0) | (changed == 1)).all()


def test_defocus_is_the_mean_over_a_disk() -> None:
    image = pictures(1, 1, 28)
    radius = 10 * 28 / 224
    rng = np.random.default_rng(0)
    expected = np.zeros((28, 28))
    rows, columns = np.mgrid[:28, :28]
    count = 4000
    for _ in range(count):
        distance, angle = radius * rng.random() ** 0.5, 2 * np.pi * rng.random()
        place = [rows + distance * np.sin(angle), columns + distance * np.cos(angle)]
        expected += map_coordinates(image[0, 0].numpy(), place, order=1, mode="nearest") / count
    assert corrupt(image, [0], "defocus_blur", 5, 0)[0, 0].numpy() == pytest.approx(expected, abs=0.005)


@pytest.mark.parametrize("kind", ["defocus_blur", "motion_blur"])
def test_blurs_are_as_wide_as_the_image_asks_for(kind: str) -> None:
    spreads = []
    for side in (113, 225):
        point = torch.zeros(1, 1, side, side)
        point[0, 0, side // 2, side // 2] = 1
        found = corrupt(point, [0], kind, 5, 0)[0, 0].double()
        assert found.sum().item() == pytest.approx(1, abs=1e-5)
        across = found.sum(0) / found.sum()
        places = torch.arange(side).double()
        mean = (across * places).sum()
        spreads.append(((across * (places - mean) ** 2).sum()).sqrt().item())
    assert spreads[1] / spreads[0] == pytest.approx(2, rel=0.06)


def test_motion_goes_to_one_side_at_up_to_45_degrees() -> None:
    point = torch.zeros(20, 1, 225, 225)
    point[:, 0, 112, 112] = 1
    rows, columns = torch.meshgrid(torch.arange(225.0), torch.arange(225.0), indexing="ij")
    found = corrupt(point, range(20), "motion_blur", 3, 0)[:, 0]
    down, right = ((found * (axis - 112)).sum((1, 2)) for axis in (rows, columns))
    assert (right.abs() > 2).all() and (down.abs() <= right.abs() + 0.01).all()
    assert down.std() > 1
    # The mean of a Gaussian's tail, 8 wide and cut at 30.
    assert torch.hypot(down, right).tolist() == pytest.approx([8 * (2 / np.pi) ** 0.5] * 20, rel=0.02)


def test_fog_is_a_smooth_light_common_to_the_channels() -> None:
    image = torch.zeros(1, 3, 64, 64)
    image[..., 0, 0] = 1
    fog = corrupt(image, [0], "fog", 1, 0)[0]
    assert torch.equal(fog[0], fog[1]) and torch.equal(fog[0], fog[2])
    inside = fog[0, 1:, 1:]
    assert inside.max().item() == pytest.approx(1.5 / 2.5, abs=0.05)
    assert inside.diff(dim=0).abs().mean() < 0.1 * inside.std()


def test_brightness_raises_the_value_and_keeps_hue_and_saturation() -> None:
    image = pictures(1, 3, 6)
    changed = corrupt(image, [0], "brightness", 2, 0)
    for before, after in zip(image[0].flatten(1).T.tolist(), changed[0].flatten(1).T.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*before)
        assert after == pytest.approx(colorsys.hsv_to_rgb(hue, saturation, min(1, value + 0.2)), abs=1e-5)
    assert torch.allclose(corrupt(flat(0.3), [0], "brightness", 3, 0), flat(0.6))
    assert torch.allclose(corrupt(flat(0.0, 3), [0], "brightness", 1, 0), flat(0.1, 3))


def test_contrast_shrinks_around_the_mean_of_the_channel() -> None:
    image = pictures(1, 3, 20)
    mean = image.mean((2, 3), keepdim=True)
    assert torch.allclose(corrupt(image, [0], "contrast", 4, 0), mean + 0.1 * (image - mean))


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_what_a_file_of_that_quality_holds(channels: int) -> None:
    image = pictures(1, channels, 32)
    pixels = (255 * image[0]).round().byte().permute(1, 2, 0).squeeze().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=15)
    read = np.asarray(Image.open(file)).reshape(32, 32, channels) / 255
    found = corrupt(image, [0], "jpeg", 3, 0)[0].permute(1, 2, 0).numpy()
    assert found == pytest.approx(read, abs=1e-6)


def test_pixels_become_the_means_of_their_blocks() -> None:
    image = pictures(1, 1, 28, 40)
    blocks = corrupt(image, [0], "pixelate", 2, 0)[0, 0]
    expected = image[0, 0].unfold(0, 2, 2).unfold(1, 2, 2).mean((2, 3))
    assert torch.allclose(blocks, expected.repeat_interleave(2, 0).repeat_interleave(2, 1), atol=1e-6)
    assert torch.allclose(corrupt(flat(0.37, 3, 31), [0], "pixelate", 1, 0), flat(0.37, 3, 31))


@pytest.mark.parametrize("severity", [0, 6, -1, 2.5])
def test_an_unknown_severity(severity: int) -> None:
    with pytest.raises(ParameterError, match=r"^severity .* of fog must be a whole number from 1 to 5$"):
        corrupt(flat(0.5), [0], "fog", severity, 0)


def test_an_unknown_kind() -> None:
    with pytest.raises(ParameterError, match=r"^unknown corruption 'rain'; known: gaussian_noise, shot_"):
        corrupt(flat(0.5), [0], "rain", 1, 0)


@pytest.mark.parametrize("images", [flat(0.5).byte(), flat(0.5, 2), flat(0.5)[0, 0]])
def test_other_images_are_refused(images: Tensor) -> None:
    with pytest.raises(ValueError, match=r"images must be float \[B, C, H, W\] or \[C, H, W\] of 1 or 3"):
        corrupt(images, [0], "fog", 1, 0)


def test_ids_that_do_not_match() -> None:
    with pytest.raises(ValueError, match=r"there are 2 ids for 1 images"):
        corrupt(flat(0.5), [0, 1], "fog", 1, 0)


def test_sets_are_called_after_kind_and_severity() -> None:
    settings = CorruptionSettings(kinds=("fog", "gaussian_noise"), severities=(5, 1))
    assert settings.sets == {
        "gaussian_noise_1": ("gaussian_noise", 1),
        "gaussian_noise_5": ("gaussian_noise", 5),
        "fog_1": ("fog", 1),
        "fog_5": ("fog", 5),
    }
    assert CorruptionSettings(kinds=(), severities=(1,)).sets == {}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kinds": ["rain"]}, r"unknown kind 'rain'; known: gaussian_noise, "),
        ({"kinds": ["fog", "fog"]}, r"names one twice"),
        ({"severities": [1, 1]}, r"names one twice"),
        ({"severities": []}, r"at least 1 item"),
        ({"severities": [0]}, r"greater than or equal to 1"),
        ({"severities": [6]}, r"less than or equal to 5"),
        ({"severities": [True]}, r"valid integer"),
        ({"kinds": "fog"}, r"tuple"),
    ],
)
def test_settings_that_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CorruptionSettings.model_validate({"kinds": [], "severities": [1, 3, 5], **changes})
