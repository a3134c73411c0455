"""Each program answers its question at a tiny size: a table, and its ratio on the last line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
RATIO = r": \d+\.\d\d x \(\d+\.\d\d\.\.\d+\.\d\d\)$"


def run(program: str) -> str:
    name, *arguments = program.split()
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("program", "last", "rows"),
    [
        (
            "training_step --backbone resnet18 --size 32 --batch 8 --repeats 1",
            "the authors' step / ours",
            {"the authors' mdprop", "ours, mdprop", "ours, standard", "convolutions alone", "matrix product"},
        ),
        (
            "data_path --images 8 --batch 4 --workers 0 1 --repeats 1",
            "loading an image with 0 workers, ImageFolder / ours, raw",
            {"ImageFolder", "ours, compressed", "ours, raw", "0", "1"},
        ),
        (
            "adversarial_generation --backbone conv4 --size 16 --images 8 --steps 2 --repeats 1",
            "ours, in the time of the model's steps alone",
            {"ours, multi_target", "2 x (forward + gradient)", "5 x targets' forward"},
        ),
        (
            "embedding --backbone conv4 --size 16 --images 8 --repeats 1",
            "ours, in the time of the model's forward alone",
            {"ours, from the store to Parquet", "the model's forward alone"},
        ),
    ],
)
def test_ends_with_its_ratio(program: str, last: str, rows: set[str]) -> None:
    printed = run(program).rstrip()
    assert f"`python -m benchmarks.{program}`" in printed
    assert re.search(f"^{re.escape(last)}{RATIO}", printed.splitlines()[-1])
    heads = {line.split(" | ")[0].removeprefix("| ") for line in printed.splitlines() if line.startswith("|")}
    assert rows <= heads


@pytest.mark.slow
def test_pipeline_overhead_ends_with_its_ratio() -> None:
    printed = run("pipeline_overhead --repeats 1").rstrip()
    assert re.search(f"in runs of `true`{RATIO}", printed.splitlines()[-1])
    rows = re.findall(r"^\| (.+?) \| (\d[\d.e+-]*) \|", printed, re.M)
    seconds = {name: float(middle) for name, middle in rows}
    assert seconds["dvc repro, nothing to do"] > seconds["dvc --version"] > seconds["true"]
