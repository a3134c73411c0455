"""Where a training is: all that its next steps depend on, kept on disk and put back."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mdprop.config.schema import TrainSettings
from mdprop.data.loading.datasets import TrainBatches
from mdprop.errors import ParameterError
from mdprop.models.parts import broken_weights
from mdprop.parallel.exchange import from_main, gather_rows, rank, world_size
from mdprop.runtime.state import Piece, State, say, steps_between
from mdprop.training.records import Record

KEPT = 2
"""States on disk: the last one, and the one before, should the last one be damaged."""

_GENERATORS = "generators."


@dataclass
class Progress:
    """A training between two steps.

    losses: of the steps of this epoch, on the model's device; [steps of an epoch], those to come are 0.
    generator: of targets and noise, seeded each epoch.
    epoch, step: how many epochs are done, and how many steps of the next one.
    curves: the values before the first epoch, and of each that is done.
    """

    settings: TrainSettings
    model: nn.Module
    loss: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler | None
    losses: Tensor
    generator: torch.Generator
    epoch: int = 0
    step: int = 0
    curves: list[dict[str, float]] = field(default_factory=list)
    _generators: dict[str, Tensor] = field(default_factory=dict)

    def mean_loss(self) -> float:
        """That of this epoch's steps, added up one by one in float32; errors as in `check`."""
        return float(np.add.accumulate(np.array(self.check(), np.float32))[-1]) / self.step

    def check(self) -> list[float]:
        """The losses of this epoch's steps. `ParameterError` for one, or a weight, that is not finite."""
        losses: list[float] = self.losses[: self.step].tolist()
        wrong = next((i for i, value in enumerate(losses) if not math.isfinite(value)), None)
        broken = broken_weights(self.model) or broken_weights(self.loss)
        if wrong is None and broken is None:
            return losses
        what = f"{broken} is not finite after" if wrong is None else f"the loss is {losses[wrong]} at"
        step = self.step if wrong is None else wrong + 1
        raise ParameterError(
            f"training diverged: {what} step {step} of epoch {self.epoch + 1}; lower train.learning_rate "
            f"({self.settings.learning_rate:g}) or train.weight_decay ({self.settings.weight_decay:g}), or "
            "check the options of the loss; no model is written, and the state before this is kept"
        )

    def tensors(self) -> dict[str, Tensor]:
        """All that is tensors; to be called in all processes."""
        parts = {f"model.{key}": value for key, value in self.model.state_dict().items()}
        parts |= {f"loss.{key}": value for key, value in self.loss.state_dict().items()}
        moments = self.optimizer.state_dict()["state"]
        parts |= {f"optimizer.{i}.{key}": value for i, own in moments.items() for key, value in own.items()}
        parts |= {f"{_GENERATORS}{name}": value for name, value in self._global_generators().items()}
        return parts | {"losses": self.losses, "generator": self.generator.get_state()}

    def info(self) -> dict[str, Any]:
        """All that is not tensors."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "curves": self.curves,
            "groups": self.optimizer.state_dict()["param_groups"],
            "schedule": None if self.scheduler is None else self.scheduler.state_dict(),
        }

    def restore(self, piece: Piece) -> None:
        """Take up what `tensors` and `info` gave; the global generators wait for `begin`."""
        info = piece.info
        self.epoch, self.step, self.curves = info["epoch"], info["step"], info["curves"]
        self.model.load_state_dict(_below("model.", piece.tensors))
        self.loss.load_state_dict(_below("loss.", piece.tensors))
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in _below("optimizer.", piece.tensors).items():
            number, _, name = key.partition(".")
            moments.setdefault(int(number), {})[name] = value
        groups = [{**group, "betas": tuple(group["betas"])} for group in info["groups"]]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        for parameter, own in self.optimizer.state.items():
            for name, value in own.items():
                if value.shape == parameter.shape:  # in the layout of the weights, which fused steps rely on
                    own[name] = torch.empty_like(parameter).copy_(value)
        if self.scheduler is not None:
            self.scheduler.load_state_dict(info["schedule"])
        self.losses.copy_(piece.tensors["losses"])
        self.generator.set_state(piece.tensors["generator"].clone())
        self._generators = _below(_GENERATORS, piece.tensors)

    def begin(self, loader: TrainBatches) -> Iterator[Any]:
        """An iterator over the batches of this epoch, and the global generators where they were.

        A loader draws from them as an epoch begins; one whose workers stay, with its first epoch only.
        They are put back after a draw that is behind them, and before one that is to come.
        """
        drawn = self.step > 0 or (loader.persistent_workers and self.epoch > 0)
        if not drawn:
            self._put_back()
        batches = iter(loader)
        self._put_back()
        return batches

    def _put_back(self) -> None:
        if self._generators:
            own = {name: states[rank()].clone() for name, states in self._generators.items()}
            torch.set_rng_state(own["cpu"])  # of a view it would read the beginning of what is viewed
            if "cuda" in own:
                torch.cuda.set_rng_state(own["cuda"], self.losses.device)
        self._generators = {}

    def _global_generators(self) -> dict[str, Tensor]:
        """The states of those that layers and losses draw from, of every process: [P, bytes]."""
        states = {"cpu": torch.get_rng_state()}
        if self.losses.device.type == "cuda":
            states["cuda"] = torch.cuda.get_rng_state(self.losses.device)
        return {
            name: state[None] if world_size() == 1 else gather_rows(state[None])
            for name, state in states.items()
        }


class Keeper:
    """Keeps a training's state, and its curves; of several processes, the first writes.

    hardware: named in what is kept, and compared when it is taken up; results may differ in rounding.
    """

    def __init__(self, state: State, record: Record, hardware: str, name: str) -> None:
        self.state, self.record, self.hardware, self.name = state, record, hardware, name
        self.every = steps_between()
        self._whole: list[Path] = []

    def resume(self, progress: Progress) -> None:
        """Go on from the last state that is whole, if there is one; its curves are written again."""
        piece = None
        if not rank():
            paths = self.state.paths()
            while paths and (piece := self.state.load(paths[-1])) is None:
                paths.pop()
            self._whole = paths
        path = from_main(piece and piece.path)
        if path is None:
            return
        if piece is None and (piece := self.state.load(path)) is None:
            raise ParameterError(f"{path} cannot be read by process {rank()}: all must see the same folder")
        progress.restore(piece)
        self.before(progress)
        for epoch, values in enumerate(progress.curves[1:], 1):
            self.record(epoch, values)
        if not rank():
            step = f" and step {progress.step}" if progress.step else ""
            say(f"{self.name} goes on after epoch {progress.epoch}{step}, from {path}")
            if piece.info["hardware"] != self.hardware:
                say(
                    f"it began on {piece.info['hardware']} and goes on on {self.hardware}: results may "
                    "differ in rounding from a training on one of them"
                )

    def before(self, progress: Progress) -> None:
        """Write the curves before the first epoch, where they show something."""
        if progress.curves[0]:
            self.record(0, progress.curves[0])

    def after_step(self, progress: Progress) -> None:
        """Write a state every `$MDPROP_STATE_EVERY` steps, within an epoch."""
        steps = len(progress.losses)
        if (
            self.every
            and progress.step < steps
            and (progress.epoch * steps + progress.step) % self.every == 0
        ):
            progress.check()
            self._save(progress)

    def after_epoch(self, progress: Progress) -> None:
        """Write the state first, so that a curve that cannot be written costs no training."""
        self._save(progress)
        self.record(progress.epoch, progress.curves[-1])

    def _save(self, progress: Progress) -> None:
        tensors = progress.tensors()
        if rank():
            return
        path = self.state.save(
            f"{progress.epoch:08}-{progress.step:08}", tensors, {**progress.info(), "hardware": self.hardware}
        )
        self._whole = [*(old for old in self._whole if old != path), path]
        for old in self._whole[:-KEPT]:
            old.unlink(missing_ok=True)
        self._whole = self._whole[-KEPT:]


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
