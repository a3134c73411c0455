"""By which means an attack makes its objective small; one shape for all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from mdprop.attacks.apgd import apgd
from mdprop.attacks.noise import Keys, noise
from mdprop.attacks.norms import Ball, Bound
from mdprop.attacks.pgd import GradientLog, Objective, pgd
from mdprop.attacks.square import square


@dataclass(frozen=True)
class Attempt:
    """All that an optimizer may need for a batch; each takes what concerns it.

    start: [B, C, H, W], where pgd and apgd begin; square and noise begin by chance.
    steps: of every one but noise. step_size: of pgd, in the ball's norm; the others choose their own.
    keys: of each image's draws in square and noise, such as [seed, image id, restart].
    log: told of the gradients of pgd and apgd; the others take none.
    """

    objective: Objective
    start: Tensor
    ball: Ball
    steps: int
    step_size: Bound
    keys: Keys
    log: GradientLog | None = None


Optimizer = Callable[[Attempt], Tensor]
"""Images in the ball: [B, C, H, W], detached; what an image becomes does not depend on its batch."""

OPTIMIZERS: dict[str, Optimizer] = {
    "pgd": lambda a: pgd(a.objective, a.start, a.ball, steps=a.steps, step_size=a.step_size, log=a.log),
    "apgd": lambda a: apgd(a.objective, a.start, a.ball, steps=a.steps, log=a.log),
    "square": lambda a: square(a.objective, a.ball, steps=a.steps, keys=a.keys),
    "noise": lambda a: noise(a.ball, a.keys),
}
"""By the name that a threat gives."""
