"""Timing by turns, and the Markdown that reports it."""

from __future__ import annotations

import argparse
import gc
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

Seconds = dict[str, list[float]]


class OwnSeconds(float):
    """The seconds that a function took by its own clock, or would have taken."""


def benchmark_parser(description: str | None, repeats: int) -> argparse.ArgumentParser:
    """A parser with the option that all programs have; `description` is shown as it is written."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=formatter)
    parser.add_argument("--repeats", type=int, default=repeats, help=f"turns that count ({repeats})")
    return parser


def alternate(functions: Mapping[str, Callable[[], object]], repeats: int, warmups: int = 1) -> Seconds:
    """Seconds of each call, by name; the functions take turns, so that a slow spell hits them all.

    A function that returns `OwnSeconds` has timed itself.
    """
    seconds: Seconds = {name: [] for name in functions}
    for turn in range(warmups + repeats):
        for name, function in functions.items():
            gc.collect()
            start = time.perf_counter()
            result = function()
            spent = time.perf_counter() - start
            if turn >= warmups:
                seconds[name].append(result if isinstance(result, OwnSeconds) else spent)
    return seconds


def median_ratio(slower: Sequence[float], faster: Sequence[float]) -> str:
    """How many times `faster` fits into `slower`: of the medians, and the range over the turns.

    >>> median_ratio([3.0, 4.0, 5.0], [2.0, 2.0, 1.0])
    '2.00 x (1.50..5.00)'
    """
    turns = [a / b for a, b in zip(slower, faster, strict=True)]
    ratio = statistics.median(slower) / statistics.median(faster)
    return f"{ratio:.2f} x ({min(turns):.2f}..{max(turns):.2f})"


def throughput_table(seconds: Seconds, images: int) -> str:
    """Markdown: median and range of the seconds of each function, and images/s at the median."""
    rows = [["", "seconds, median", "min..max", "images/s"]]
    for name, values in seconds.items():
        middle = statistics.median(values)
        spread = f"{min(values):.3g}..{max(values):.3g}"
        rows.append([name, f"{middle:.3g}", spread, f"{images / middle:.3g}"])
    return markdown(rows)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table, its first row the head.

    >>> print(markdown([["", "s"], ["ours", "1"]]))
    |  | s |
    | --- | --- |
    | ours | 1 |
    """
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "| " + " | ".join("---" for _ in rows[0]) + " |", *lines[1:]])


def print_conditions() -> None:
    """The machine, the versions, the commit and the command."""
    import torch

    from mdprop.runtime.provenance import provenance

    made = provenance()
    device = "" if made["device"] == "cpu" else f", {made['device']}"
    print(
        f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads{device}; torch "
        f"{made['torch']}, Python {made['python']}; mdprop {made['mdprop']}, commit {made['commit']}\n"
        f"`{_command()}`\n"
    )


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _command() -> str:
    program = f"-m benchmarks.{Path(sys.argv[0]).stem}"
    return " ".join(["python", program, *map(shlex.quote, sys.argv[1:])])
