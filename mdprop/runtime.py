"""What runs where: progress, hardware and provenance."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import TYPE_CHECKING, TypeVar

from rich import progress
from rich.console import Console
from rich.text import Text

from mdprop.errors import ParameterError, one_line

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 10.0
BATCHES_BETWEEN_TRIMS = 8


def track(iterable: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Pass items on and show on standard error how far they are, their rate and the time left.

    A bar on a terminal; elsewhere a line every ten seconds or so, and one at the end. Of several
    processes, one shows it.
    """
    if not is_main():
        yield from iterable
        return
    if total is None and isinstance(iterable, Sized):
        total = len(iterable)
    show = _bar if sys.stderr.isatty() else _lines
    yield from show(iterable, description, total)


class _Rate(progress.ProgressColumn):
    def render(self, task: progress.Task) -> Text:
        return Text(f"{task.finished_speed or task.speed or 0:,.1f}/s")


def _bar(iterable: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        _Rate(),
        progress.TimeRemainingColumn(elapsed_when_finished=True),
    )
    with progress.Progress(*columns, console=Console(stderr=True)) as bar:
        yield from bar.track(iterable, total=total, description=description)


def _lines(iterable: Iterable[T], description: str, total: int | None) -> Iterator[T]:
    start = last = time.monotonic()
    done = 0
    for item in iterable:
        yield item
        done += 1
        now = time.monotonic()
        if now - last >= SECONDS_BETWEEN_LINES and done != total:
            last = now
            print(_line(description, done, total, now - start), file=sys.stderr, flush=True)
    print(_line(description, done, total, time.monotonic() - start), file=sys.stderr, flush=True)


def _line(description: str, done: int, total: int | None, seconds: float) -> str:
    """
    >>> _line("preparing cub", 500, 2000, 10.0)
    'preparing cub: 500/2000, 50.0/s, 30 s left'
    """
    rate = done / max(seconds, 1e-9)
    if total is None or done >= total:
        return f"{description}: {done} in {seconds:.1f} s, {rate:.1f}/s"
    left = f", {(total - done) / rate:.0f} s left" if done else ""
    return f"{description}: {done}/{total}, {rate:.1f}/s{left}"


def trimmed(batches: Iterable[T]) -> Iterator[T]:
    """Pass batches on, and have the C library give back the memory they leave now and then.

    Where it is glibc, whose heap fragments: over 12,000 images the memory of embedding grew by a
    quarter.
    """
    trim = _glibc("malloc_trim")
    for number, batch in enumerate(batches, 1):
        yield batch
        if trim is not None and number % BATCHES_BETWEEN_TRIMS == 0:
            trim(0)


def keep_memory() -> None:
    """Have the C library keep large blocks that are freed, for the next batch, where it is glibc.

    It maps them anew each time, and the system fills them with zeros: half the time of embedding
    with a ResNet-50 on a CPU, a tenth of training it.
    """
    if set_option := _glibc("mallopt"):
        for option, value in _KEEP.items():
            set_option(option, value)


_KEEP = {-1: 2**31 - 1, -4: 0}  # M_TRIM_THRESHOLD, M_MMAP_MAX


def _glibc(function: str) -> Callable[..., int] | None:
    """A function of the C library that only glibc has."""
    library = ctypes.CDLL(None) if os.name == "posix" else None
    return getattr(library, function) if hasattr(library, "gnu_get_libc_version") else None


def is_main() -> bool:
    """Whether this process writes and speaks: of several, the first."""
    return os.environ.get("RANK", "0") == "0"


def device() -> torch.device:
    """`$MDPROP_DEVICE`, else the GPU where there is one, else the CPU; of several processes, a GPU each.

    Hardware comes from the environment, never from params.yaml, so that results cached on one
    machine hold on another. Raises `ParameterError` for a device that is not there.
    """
    import torch

    name = os.environ.get("MDPROP_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
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


def provenance() -> dict[str, str]:
    """What made a result: versions, the commit and the kind of hardware. No clock, no host name."""
    import platform

    import torch

    import mdprop

    return {
        "mdprop": mdprop.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if device().type == "cuda" else "cpu",
        "commit": _commit(),
    }


def _commit() -> str:
    """The commit of the working directory, with + where it has changes; "unknown" without git."""
    command = ["git", "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()
