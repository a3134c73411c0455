"""`mdprop measure`, from its arguments to what it prints."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

from mdprop.cli import main
from mdprop.models import build_model, save_model
from tests.helpers import PROJECT, small_store

CODE = """
from torch import nn

def small():
    return nn.Sequential(nn.AvgPool2d(7), nn.Flatten())

def rounded():
    class Rounded(nn.Module):
        def forward(self, images):
            return (images * 9).round().flatten(1)
    return Rounded()
"""
SETS = {
    "away": {"goal": "untargeted", "steps": 1},
    "through_a": {"goal": "untargeted", "branch": "single_target"},
    "from_at": {"goal": "untargeted", "source": "at/0"},
}


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with parameters, prepared images and the code of a network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    params = YAML(typ="safe").load((PROJECT / "params.yaml").read_text())
    params["adversary"] |= {"queries": 15, "sets": SETS, "sources": ["at/0"]}
    params["corruptions"]["kinds"] = ["fog"]
    with Path("params.yaml").open("w") as file:
        YAML(typ="safe").dump(params, file)
    folder = Path("data/prepared/glyphs")
    folder.mkdir(parents=True)
    small_store(folder / "test.arrow", classes=5, images=4, size=32)
    Path("net.py").write_text(CODE)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of `mdprop measure ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["mdprop", "measure", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def test_a_function_is_measured_and_its_table_printed(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "net.py:small", "--out", "measured/small") == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    notes = [line for line in lines if line.startswith("note: ")]
    assert {note.split()[3] for note in notes} == {"adversary.sets.through_a", "adversary.sets.from_at"}
    assert any(line.startswith("small ") for line in lines)
    assert "interval of 95 %" in shown.out and "worst" in shown.out
    assert lines[-1] == "wrote measured/small"
    assert "attack measured/small: 15 images in" in shown.err
    metrics = json.loads(Path("measured/small/metrics.json").read_text())
    assert {"clean", "away", "fog_1", "fog_5", "corruptions", "worst_case", "checks"} <= set(metrics)


def test_what_the_checks_find_is_a_warning(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "net.py:rounded", "--out", "x") == 0
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert any("away meets gradients of exactly 0" in line for line in warnings)


def test_a_run_and_its_branch(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    branches = ("clean", "single_target", "multi_target")
    model = build_model("conv4", 6, branches=branches, mean=[0.5], std=[0.25])
    save_model(model, "runs/mdprop/0", backbone="conv4", embedding_dim=6)
    assert run(monkeypatch, "runs/mdprop/0", "--branch", "multi_target", "--out", "x") == 0
    out = capsys.readouterr().out
    assert "\nx@multi_target " in out
    assert [line.split()[3] for line in out.splitlines() if line.startswith("note: ")] == [
        "adversary.sets.from_at"
    ]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("net.py:small",), "--out"),
        (("net.py:other", "--out", "x"), "error: net.py has no function 'other'\n"),
        (("net.py:small", "--out", "data"), "error: data is no earlier measurement, and is not empty"),
        (("net.py:small", "--branch", "clean", "--out", "x"), "error: net.py:small is no folder of a run"),
        (("net.py:small", "--params", "p.yaml", "--out", "x"), "error: p.yaml not found"),
        (("none.pt2", "--out", "x"), "error: none.pt2 does not exist: give "),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    problem: str,
) -> None:
    assert run(monkeypatch, *arguments) == 2
    error = capsys.readouterr().err
    assert problem in error
    if error.startswith("error: "):
        assert error.count("\n") == 1
    assert not Path("x").exists()


def test_images_come_from_prepare(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree("data")
    assert run(monkeypatch, "net.py:small", "--out", "x") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: data/prepared/glyphs/test.arrow does not exist: ")
    assert error.count("\n") == 1
