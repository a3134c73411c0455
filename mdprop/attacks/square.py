"""Black-box random search in squares, after Andriushchenko et al. 2020 (Square Attack, arXiv 1912.00049)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdprop.attacks.noise import Keys, generators
from mdprop.attacks.norms import Ball, L2Ball, LinfBall
from mdprop.attacks.pgd import Objective

FIRST_SHARE = 0.8
"""Of an image's pixels, in the first square. (The paper's p.)"""
HALVED_AFTER = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Of 10,000 steps, those after which the share is halved."""

Draws = Sequence[np.random.Generator]


@torch.no_grad()
def square(objective: Objective, ball: Ball, *, steps: int, keys: Keys) -> Tensor:
    """Images in the ball with a small objective, found without any gradient: [B, C, H, W].

    It begins with vertical stripes of random signs, of full norm. Each step proposes a change in a random
    square window, and an image accepts it only if its own objective falls. The squares shrink by the
    paper's schedule, rescaled to `steps`.

    "linf": all pixels of a channel in the window are set to +epsilon or −epsilon, by a random sign for
    each channel. "l2": a second window is emptied, and the norm set free there goes into the first, as
    what was there plus a pattern of two humps of opposite sign; so does what the ball's norm has left.

    keys: of each image's draws, which do not depend on its batch.

    The objective is called `steps` + 1 times. Where we differ from the paper: windows may touch every
    border; no search ends early; "l2" also begins with stripes, not with a grid of humps, its humps fall
    off as 1 / (1 + distance), and they lie across for each image by itself.
    """
    channels, _, width = ball.images.shape[1:]
    draws, propose = generators(keys), _PROPOSALS[type(ball)]
    stripes = _signs(_integers(draws, (2,) * (channels * width)), ball.images)
    stripes = stripes.view(-1, channels, 1, width).expand_as(ball.images)
    best = ball.step(ball.images, stripes, ball.epsilon)
    reached = _values(objective, best)
    for step in range(steps):
        proposed = propose(ball, best, _share(step, steps), draws)
        values = _values(objective, proposed)
        better = values < reached
        best = torch.where(better.view(-1, 1, 1, 1), proposed, best)
        reached = torch.where(better, values, reached)
    return best


def _values(objective: Objective, images: Tensor) -> Tensor:
    """The objective [B], infinite where it is not a number."""
    values = objective(images)
    return values.masked_fill(values.isnan(), torch.inf)


def _share(step: int, steps: int) -> float:
    """Of an image's pixels, in the square of a step, the first of which is 0."""
    return FIRST_SHARE / 2 ** sum(10_000 * step > after * steps for after in HALVED_AFTER)


def _squares(ball: Ball, best: Tensor, share: float, draws: Draws) -> Tensor:
    """In one window, each channel at one end of the ball."""
    side, places = _windows(best, share, 1)
    drawn = _integers(draws, places + (2,) * best.shape[1])
    rows, columns = _offsets(drawn[:, :2], best)
    signs = _signs(drawn[:, 2:], best).view(*best.shape[:2], 1, 1).expand_as(best)
    return torch.where(_inside(rows, columns, side), ball.step(ball.images, signs, ball.epsilon), best)


def _moved_norm(ball: Ball, best: Tensor, share: float, draws: Draws) -> Tensor:
    """The norm of one window, and what the ball has left, moved into another."""
    side, places = _windows(best, share, 3)
    drawn = _integers(draws, places * 2 + (2,) * (1 + best.shape[1]))
    rows, columns = _offsets(drawn[:, :2], best)
    filled = _inside(rows, columns, side)
    emptied = _inside(*_offsets(drawn[:, 2:4], best), side)
    humps = _humps(side).to(best)[
        drawn[:, 4].to(best.device).view(-1, 1, 1, 1), rows.clamp(0, side - 1), columns.clamp(0, side - 1)
    ]
    signs = _signs(drawn[:, 5:], best).view(*best.shape[:2], 1, 1)

    shift = best - ball.images
    kept = shift.masked_fill(filled | emptied, 0)
    left = ball.epsilon**2 - _energy(shift).sum(1, keepdim=True)
    energy = _energy(shift) - _energy(kept) + left / best.shape[1]
    content = (_unit(shift * filled) + signs * humps) * filled
    return ball.clip(ball.images + kept + _unit(content) * energy.clamp(min=0).sqrt())


_PROPOSALS: dict[type[Ball], Callable[[Ball, Tensor, float, Draws], Tensor]] = {
    LinfBall: _squares,
    L2Ball: _moved_norm,
}


def _windows(images: Tensor, share: float, least: int) -> tuple[int, tuple[int, int]]:
    """The side of a square of a share of the pixels, and how many rows and columns its corner may lie in."""
    height, width = images.shape[-2:]
    side = min(max(round((share * height * width) ** 0.5), least), height, width)
    return side, (height - side + 1, width - side + 1)


def _integers(draws: Draws, below: tuple[int, ...]) -> Tensor:
    """Of each image, one integer below each of K numbers: [B, K]."""
    bounds: NDArray[np.int64] = np.array(below)
    return torch.from_numpy(np.stack([rng.integers(bounds) for rng in draws]))


def _signs(bits: Tensor, like: Tensor) -> Tensor:
    return (2 * bits - 1).to(like)


def _offsets(corners: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Corners [B, 2] -> each pixel's row and column as seen from there: [B, 1, H, 1], [B, 1, 1, W]."""
    top, left = corners.to(images.device).view(-1, 2, 1, 1, 1).unbind(1)
    rows, columns = (torch.arange(size, device=images.device) for size in images.shape[-2:])
    return rows[:, None] - top, columns - left


def _inside(rows: Tensor, columns: Tensor, side: int) -> Tensor:
    """Whether a pixel is in the square: [B, 1, H, W]."""
    return (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)


def _humps(side: int) -> Tensor:
    """A positive hump above a negative one, and the same on its side: [2, side, side]."""
    pattern = torch.cat([_hump(side // 2, side), -_hump(side - side // 2, side)])
    pattern = pattern / pattern.norm()
    return torch.stack([pattern, pattern.T])


def _hump(height: int, width: int) -> Tensor:
    rows, columns = ((torch.arange(size) - (size - 1) / 2).abs() for size in (height, width))
    return 1 / (1 + torch.maximum(rows[:, None], columns))


def _energy(shift: Tensor) -> Tensor:
    """The squared norm of each channel: [B, C, 1, 1]."""
    return shift.square().sum(dim=(2, 3), keepdim=True)


def _unit(shift: Tensor) -> Tensor:
    """Each channel with norm 1; 0 where it is 0."""
    return shift / _energy(shift).sqrt().clamp(min=torch.finfo(shift.dtype).tiny)
