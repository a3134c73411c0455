from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

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


def test_there_is_a_test_for_every_example() -> None:
    assert {path.name for path in EXAMPLES.glob("*.py")} == {
        "convert_any_network.py",
        "attack_in_feature_space.py",
        "measure_a_network.py",
    }
