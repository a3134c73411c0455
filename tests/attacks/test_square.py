from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mdprop.attacks.noise import generators, noise
from mdprop.attacks.norms import BALLS, L2Ball, LinfBall
from mdprop.attacks.square import _moved_norm, _share, _squares, square
from tests.helpers import small_embedder

IMAGES = torch.rand(6, 3, 12, 10, generator=torch.Generator().manual_seed(0))
GOAL = torch.rand(6, 3, 12, 10, generator=torch.Generator().manual_seed(1))
KEYS = [[3, image, 0] for image in range(6)]


def distance(images: Tensor) -> Tensor:
    return (images - GOAL).flatten(1).norm(dim=1)


@pytest.mark.parametrize("norm", BALLS)
def test_it_needs_no_gradient_and_improves_with_every_accepted_step(norm: str) -> None:
    seen: list[Tensor] = []

    def objective(images: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        assert not images.requires_grad
        seen.append(distance(images))
        return seen[-1]

    ball = BALLS[norm](IMAGES, 0.2 if norm == "linf" else 1.5, 0.0, 1.0)
    found = square(objective, ball, steps=300, keys=KEYS)
    assert len(seen) == 301
    assert_close(distance(found), torch.stack(seen).amin(0))
    assert (distance(found) < seen[0] - 0.1).all()
    assert (distance(found) < distance(noise(ball, KEYS))).all()
    few = square(distance, ball, steps=10, keys=KEYS)
    assert (distance(found) < distance(few)).all()


def test_squares_of_signs_reach_the_corners_of_a_linear_objective() -> None:
    weights = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(2))
    images = torch.full((3, 2, 4, 4), 0.5)
    ball = LinfBall(images, 0.1, 0.0, 1.0)
    found = square(lambda x: (x * weights).flatten(1).sum(1), ball, steps=1500, keys=KEYS[:3])
    assert_close(found, images - 0.1 * weights.sign())


def test_both_signs_are_as_likely_in_each_channel() -> None:
    images = torch.full((400, 2, 4, 4), 0.5)
    keys = [[image] for image in range(400)]
    for norm, propose in (("linf", _squares), ("l2", _moved_norm)):
        shift = propose(BALLS[norm](images, 0.1, 0.0, 1.0), images, 1.0, generators(keys)) - images
        up = shift[..., 0, 0] > 0
        assert ((up.float().mean(0) - 0.5).abs() < 0.1).all()
        assert ((up[:, 0] == up[:, 1]).float().mean() - 0.5).abs() < 0.1


@pytest.mark.parametrize("side", [3, 4, 5])
def test_the_first_windows_are_two_humps_of_opposite_sign(side: int) -> None:
    """One above the other or beside it, of the whole norm; the row in the middle of an odd side falls."""
    size = 12
    images = torch.full((30, 1, size, size), 0.5)
    found = _moved_norm(
        L2Ball(images, 0.3, 0.0, 1.0), images, (side / size) ** 2, generators([[i] for i in range(30)])
    )
    half = side // 2
    ways = set()
    for shift in (found - images)[:, 0]:
        rows, columns = shift.nonzero().unbind(1)
        window = shift[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert window.shape == (side, side)
        assert window.norm().item() == pytest.approx(0.3, rel=1e-5)
        across = bool((window[0, 0] > 0) != (window[0, -1] > 0))
        window = window.T if across else window
        sign = window[0, 0].sign()
        assert (sign * window[:half] > 0).all()
        assert (sign * window[half:] < 0).all()
        for hump in (window[:half], window[half:]):  # each falls off alike on all sides
            assert_close(hump, hump.flip(0))
            assert_close(hump, hump.flip(1))
        assert len(window[0].unique()) > 1
        ways.add((across, sign.item()))
    assert len(ways) == 4


def test_moved_norm_goes_half_the_way_to_the_optimum_of_a_linear_objective() -> None:
    weights = torch.randn(3, 1, 6, 6, generator=torch.Generator().manual_seed(2))
    images = torch.full((3, 1, 6, 6), 0.5)
    ball = L2Ball(images, 0.3, 0.0, 1.0)
    found = square(lambda x: (x * weights).flatten(1).sum(1), ball, steps=1000, keys=KEYS[:3])
    reached = ((found - images) * weights).flatten(1).sum(1)
    assert (reached < -0.5 * 0.3 * weights.flatten(1).norm(dim=1)).all()


@pytest.mark.parametrize("norm", BALLS)
def test_it_stays_in_the_ball_and_the_range(norm: str) -> None:
    radii = torch.tensor([0.0, 0.01, 0.05, 0.1, 0.2, 0.9]).view(-1, 1, 1, 1)
    found = square(distance, BALLS[norm](IMAGES, radii, 0.0, 1.0), steps=50, keys=KEYS)
    moved = (found - IMAGES).flatten(1)
    sizes = moved.abs().amax(1) if norm == "linf" else moved.norm(dim=1)
    assert (sizes <= radii.flatten() + 1e-6).all()
    assert (sizes >= radii.flatten() * 0.6).all()
    assert torch.equal(found[0], IMAGES[0])
    assert found.min() >= 0
    assert found.max() <= 1


def test_a_radius_for_each_channel() -> None:
    radii = torch.tensor([0.1, 0.0, 0.05]).view(3, 1, 1)
    found = square(distance, LinfBall(IMAGES, radii, -1.0, 2.0), steps=20, keys=KEYS)
    assert_close((found - IMAGES).abs(), radii.expand_as(IMAGES))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("norm", BALLS)
def test_each_image_is_searched_as_if_it_were_alone(norm: str, layout: torch.memory_format) -> None:
    images, model = IMAGES.to(memory_format=layout), small_embedder(channels=3).eval()
    pad = torch.nn.ZeroPad2d((3, 3, 2, 2))

    def objective(x: Tensor) -> Tensor:
        """The network image by image, as its own sums may depend on the batch."""
        return torch.cat([model(pad(one[None])).sum(1) for one in x])

    together = square(objective, BALLS[norm](images, 0.1, 0.0, 1.0), steps=25, keys=KEYS)
    for i in range(6):
        own = BALLS[norm](images[i : i + 1], 0.1, 0.0, 1.0)
        assert torch.equal(square(objective, own, steps=25, keys=KEYS[i : i + 1])[0], together[i])
    other = square(objective, BALLS[norm](images, 0.1, 0.0, 1.0), steps=25, keys=[[4, *k[1:]] for k in KEYS])
    assert not torch.equal(other, together)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (9, 4)])
@pytest.mark.parametrize("norm", BALLS)
def test_images_of_any_size(norm: str, size: tuple[int, int]) -> None:
    images = torch.rand(2, 1, *size, generator=torch.Generator().manual_seed(3))
    found = square(lambda x: x.flatten(1).sum(1), BALLS[norm](images, 0.1, 0.0, 1.0), steps=40, keys=KEYS[:2])
    assert (found.flatten(1).sum(1) < images.flatten(1).sum(1)).all()


def test_only_one_window_changes_and_each_channel_of_it_as_a_whole() -> None:
    ball = LinfBall(IMAGES, 0.1, -1.0, 2.0)
    proposed = _squares(ball, IMAGES, 0.2, generators(KEYS))
    for shift in proposed - IMAGES:
        rows, columns = (shift[0].abs().amax(dim).nonzero().flatten() for dim in (1, 0))
        assert rows.tolist() == list(range(int(rows[0]), int(rows[0]) + 5))
        assert columns.tolist() == list(range(int(columns[0]), int(columns[0]) + 5))
        inside = shift[:, rows][:, :, columns].flatten(1)
        assert_close(inside, 0.1 * inside[:, :1].sign().expand_as(inside))


def test_moving_norm_uses_all_of_it_and_leaves_the_rest_alone() -> None:
    ball = L2Ball(IMAGES, 1.0, -9.0, 9.0)
    best = noise(L2Ball(IMAGES, 0.7, -9.0, 9.0), KEYS)
    proposed = _moved_norm(ball, best, 0.1, generators(KEYS))
    assert_close((proposed - IMAGES).flatten(1).norm(dim=1), torch.ones(6))
    for before, after in zip(best - IMAGES, proposed - IMAGES, strict=True):
        changed = ((after - before).abs() > 1e-6).any(0)
        assert 9 <= changed.sum() <= 18
        emptied = (after.abs() < 1e-6).all(0)
        assert emptied.sum() <= 9
        assert not (emptied & ~changed).any()


def test_squares_shrink_as_in_the_paper() -> None:
    halvings = [
        round(0.8 / _share(step, 10_000)) for step in (0, 10, 11, 51, 201, 501, 1001, 2001, 4001, 6001)
    ]
    assert halvings == [1, 1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert _share(9_999, 10_000) == _share(99, 100) == float(Fraction(8, 10) / 512)


def test_without_steps_it_is_stripes_and_what_is_no_number_is_never_accepted() -> None:
    ball = LinfBall(IMAGES, 0.1, -1.0, 2.0)
    stripes = square(distance, ball, steps=0, keys=KEYS) - IMAGES
    assert_close(stripes, stripes[:, :, :1].expand_as(stripes), rtol=0, atol=1e-6)
    assert_close(stripes.abs(), torch.full_like(stripes, 0.1))
    calls: list[int] = []

    def objective(images: Tensor) -> Tensor:
        """No number at first; later none for image 0."""
        calls.append(0)
        values = distance(images)
        return values * torch.nan if len(calls) == 1 else torch.cat([values[:1] * torch.nan, values[1:]])

    found = square(objective, ball, steps=9, keys=KEYS) - IMAGES
    assert torch.equal(found[0], stripes[0])
    assert (found[1:] != stripes[1:]).flatten(1).any(1).all()
