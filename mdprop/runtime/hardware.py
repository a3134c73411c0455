"""Where networks run: devices, processes and workers, from the environment."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mdprop.errors import ParameterError, one_line

if TYPE_CHECKING:
    import torch


LAUNCHER = "_MDPROP_LAUNCHER"
"""The environment variable by which processes of a stage know the one that started them."""


def started_by_torchrun() -> bool:
    """Whether this is one of the processes of a stage; a scheduler's `$RANK` alone says nothing."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()


def launcher() -> int | None:
    """The stage that started this one of its processes; None for one alone, or that torchrun started."""
    value = os.environ.get(LAUNCHER)
    return int(value) if value and started_by_torchrun() else None


def is_main() -> bool:
    """Whether this process writes and speaks: of several, the first."""
    return not started_by_torchrun() or os.environ["RANK"] == "0"


def device() -> torch.device:
    """`$MDPROP_DEVICE`, else the GPU where there is one, else the CPU; of several processes, a GPU each.

    Hardware comes from the environment, never from params.yaml, so that results cached on one
    machine hold on another. Raises `ParameterError` for a device that is not there.
    """
    import torch

    name = os.environ.get("MDPROP_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if started_by_torchrun() else 1
    if beside > 1 and name.startswith("cuda"):
        name = _own_gpu(name, beside, torch.cuda.device_count())
    try:
        place = torch.ones(1, device=name)
        place.item()  # fails on meta, which holds no numbers
        return place.device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = one_line(error).split(". ")[0]
        raise ParameterError(f"MDPROP_DEVICE={name}: {reason}; use cpu, cuda or cuda:<number>") from None


def _own_gpu(name: str, processes: int, gpus: int) -> str:
    """The GPU of this one of the machine's processes."""
    if name != "cuda":
        raise ParameterError(
            f"MDPROP_DEVICE={name}: {processes} processes need a GPU each; "
            "use cuda, and CUDA_VISIBLE_DEVICES to choose among GPUs"
        )
    if gpus < processes:
        raise ParameterError(
            f"{processes} processes need a GPU each and there are {gpus}: "
            "lower MDPROP_PROCESSES, or set MDPROP_DEVICE=cpu"
        )
    return f"cuda:{os.environ['LOCAL_RANK']}"


def workers() -> int:
    """Processes that decode images for each that trains: `$MDPROP_WORKERS`, else 0, none but itself."""
    value = os.environ.get("MDPROP_WORKERS") or "0"
    if not value.isdecimal():
        raise ParameterError(f"MDPROP_WORKERS={value}: a number from 0 is needed")
    return int(value)
