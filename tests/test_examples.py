from __future__ import annotations

import copy
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mdprop.models import build_model

EXAMPLES = Path(__file__).parents[1] / "examples"


def output(name: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return capsys.readouterr().out.splitlines()


def test_convert_any_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert output("convert_any_network.py", capsys) == [
        "20 batch-norm layers have 3 branches each",
        "the branches have drifted apart: True",
        "torchvision's network gives the same output: True",
    ]


def test_attack_in_feature_space(capsys: pytest.CaptureFixture[str]) -> None:
    lines = output("attack_in_feature_space.py", capsys)
    assert [line.split(":")[0] for line in lines] == ["single-targeted", "multi-targeted"]
    for line in lines:
        before, after, change = map(float, re.findall(r"\d+\.\d+", line))
        assert after < 0.8 * before
        assert 0 < change <= 0.0314  # 8/255


def test_measure_a_network(capsys: pytest.CaptureFixture[str]) -> None:
    lines = output("measure_a_network.py", capsys)
    row = next(line for line in lines if line.startswith("small_images "))
    clean, worst, towards, away = map(float, re.findall(r"\d+\.\d+", row))
    assert clean > max(towards, away)
    assert min(towards, away) >= worst
    assert "Second line: interval of 95 %" in "\n".join(lines)


def test_your_loss(capsys: pytest.CaptureFixture[str]) -> None:
    lines = output("your_loss.py", capsys)
    assert [line.split(":")[0] for line in lines] == ["standard", "mdprop"]
    for line in lines:
        clean, worst = map(float, re.findall(r"\d+\.\d(?=%)", line))
        assert clean > 25 and worst <= clean  # of four classes


def test_your_photographs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    for number in range(6):
        folder = tmp_path / ("train" if number < 3 else "test") / f"bird_{number}"
        folder.mkdir(parents=True)
        for image in range(5):
            pixels = rng.integers(0, 80, (40, 48, 3)) + np.array([25 * number, 80, 150 - 25 * number])
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{image}.jpg")
    folders = [str(tmp_path / split) for split in ("train", "test")]
    options = ["--backbone", "conv4", "--size", "32", "--epochs", "1"]
    monkeypatch.setattr("sys.argv", ["your_photographs.py", *folders, *options])
    lines = output("your_photographs.py", capsys)
    assert lines[0].startswith("Recall@1 ") and any(line.startswith("Recall@1 worst case") for line in lines)


def test_average_two_runs() -> None:
    average = runpy.run_path(str(EXAMPLES / "average_two_runs.py"))["average"]
    torch.manual_seed(0)
    first, second = (build_model("conv4", 8, mean=(0.5,), std=(0.25,)) for _ in range(2))
    images = torch.rand(80, 1, 28, 28)
    ends = [network.state_dict() for network in (copy.deepcopy(first), second)]
    between = average(first, second, 0.25, images)
    for name, parameter in between.named_parameters():
        assert torch.allclose(parameter, 0.75 * ends[0][name] + 0.25 * ends[1][name], atol=1e-6)
    seen: list[torch.Tensor] = []
    norm = next(module for module in between.modules() if isinstance(module, torch.nn.BatchNorm2d))
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    between(images)
    mean = torch.stack([part.mean((0, 2, 3)) for part in seen[0].split(64)]).mean(0)
    assert torch.allclose(norm.running_mean, mean, atol=1e-4)
    assert not between.training


def test_there_is_a_test_for_every_example() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        "convert_any_network.py",
        "attack_in_feature_space.py",
        "average_two_runs.py",
        "measure_a_network.py",
        "your_loss.py",
        "your_photographs.py",
    }
