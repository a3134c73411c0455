from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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


def test_there_is_a_test_for_every_example() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        "convert_any_network.py",
        "attack_in_feature_space.py",
        "measure_a_network.py",
        "your_loss.py",
        "your_photographs.py",
    }
