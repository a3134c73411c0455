"""Each program answers its question at a tiny size: a table, and its ratio on the last line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.scaling import exponent

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
        (
            "interruptions --backbone conv4 --size 16 --batch 8 --steps 2 --epochs 1 --repeats 1",
            "training with states / without",
            {
                "training, no state",
                "training, a state each epoch",
                "a set in one go",
                "a set, parts each second",
            },
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


@pytest.mark.slow
def test_scaling_ends_with_the_worst_exponent() -> None:
    printed = run("scaling --sizes 40 120 --batch 12 --step-repeats 1 --repeats 1").rstrip()
    exponents = {
        line.split(" | ")[0].removeprefix("| "): line.rstrip(" |").split(" | ")[-1]
        for line in printed.splitlines()
        if re.fullmatch(r"\| .* \| -?\d+\.\d\d \|", line)
    }
    del exponents["evaluate, whole"], exponents["evaluate: exact search"], exponents["evaluate: k-means"]
    steps = {"targets", "attack steps", "branches"}
    stages = {"prepare", "attack", "embed", "evaluate: density", "evaluate: spectral decay"}
    assert steps | stages <= set(exponents)
    last = re.fullmatch(r"the worst exponent other than theirs \((.+)\): (.+)", printed.splitlines()[-1])
    assert last and exponents[last[1]] == last[2]
    assert float(last[2]) == max(float(exponents[name]) for name in steps | stages)


def test_the_exponent_is_the_power() -> None:
    assert exponent({n: [9.0, 3e-6 * n**1.5, 1e-9] for n in (10, 100, 5000)}) == pytest.approx(1.5)


@pytest.mark.slow
def test_memory_ends_with_the_largest_growth() -> None:
    printed = run("memory --images 400 --encodings raw").rstrip()
    rows = re.findall(r"^\| (\w+), raw \| (\d+) \| (\d+) \| (\d+) to (\d+) \| (\d+\.\d\d) x", printed, re.M)
    assert [row[0] for row in rows] == ["prepare", "attack", "embed"]
    for _, small, large, *private, ratio in rows:
        assert float(ratio) == pytest.approx(int(large) / int(small), abs=0.02)
        assert 10 < int(private[0]) < int(small) and 10 < int(private[1]) < int(large)
    worst = max(rows, key=lambda row: float(row[-1]))
    last = re.escape(f"10 x the images, the peak that grows most ({worst[0]}, raw): {worst[-1]} x (")
    assert re.match(last, printed.splitlines()[-1])
