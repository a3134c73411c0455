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
    return all(map(os.environ.get, _SET_BY_TORCHRUN))


_SET_BY_TORCHRUN = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def check_torchrun() -> None:
    """Raise `ParameterError` where a variable is not what torchrun sets, as some schedulers do."""
    ranges = {"WORLD_SIZE": (1, 10**6), "MASTER_PORT": (0, 65_535)}
    ranges |= {"LOCAL_WORLD_SIZE": (1, 10**6), "LOCAL_RANK": (0, 10**6)}
    for name, (least, most) in ranges.items():
        if name in os.environ:
            _refuse_beyond(name, least, most)
    _refuse_beyond("RANK", 0, int(os.environ["WORLD_SIZE"]) - 1)


def _refuse_beyond(name: str, least: int, most: int) -> None:
    value = os.environ[name]
    if not value.isdecimal() or not least <= int(value[:20]) <= most:
        unset = " ".join(f"-u {variable}" for variable in _SET_BY_TORCHRUN)
        raise ParameterError(
            f"{name}={value}: a number from {least} to {most} is needed beside what else torchrun sets; "
            f"start with torchrun, or without its variables: env {unset} ..."
        )


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
    return count_from_environment("MDPROP_WORKERS", 0)


def count_from_environment(name: str, least: int) -> int:
    """A number of processes, `least` where it is not set; `ParameterError` for more than cores can serve."""
    value = os.environ.get(name) or str(least)
    most = 4 * max(4, os.cpu_count() or 1)
    if not value.isdecimal() or not least <= int(value[:20]) <= most:
        raise ParameterError(f"{name}={value}: a number from {least} to {most} is needed")
    return int(value)
