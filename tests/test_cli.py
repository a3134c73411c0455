from __future__ import annotations

import json
import re
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import mdprop
from mdprop.cli import main
from mdprop.files import sealed_json
from mdprop.report.aggregate import aggregate, to_json
from mdprop.report.confidence import Comparison, Intervals, intervals_json
from mdprop.statistics import Interval
from tests.helpers import small_store
from tests.report.synthetic import make_rows

PROJECT = Path(__file__).parents[1]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with report/metrics.json and nothing else."""
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "metrics.json").write_text(to_json(aggregate(make_rows())))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of `mdprop ARGUMENTS`."""
    monkeypatch.setattr(sys, "argv", ["mdprop", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def edit_metrics(project: Path, method: str, input_set: str, value: float | None) -> None:
    path = project / "report" / "metrics.json"
    metrics: dict[str, Any] = json.loads(path.read_text())
    metrics[method][input_set]["recall_at_1"]["mean"] = value
    path.write_text(json.dumps(metrics))


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, mdprop.cli; print(*(m for m in sys.modules if '.' not in m))"
    modules = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    loaded = set(modules.stdout.split())
    assert "typer" in loaded
    assert not loaded & {"torch", "numpy", "matplotlib", "jinja2", "rich", "pydantic", "ruamel", "faiss"}


def test_help_of_the_module_lists_the_commands() -> None:
    command = [sys.executable, "-m", "mdprop", "--help"]
    text = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    for name in ("table", "check", "export"):
        assert f"\n  {name}  " in text


def write_params(project: Path, adversary: dict[str, Any]) -> None:
    params = YAML(typ="safe").load((PROJECT / "params.yaml").read_text())
    params["adversary"] |= adversary
    with (project / "params.yaml").open("w") as file:
        YAML(typ="safe").dump(params, file)


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"mdprop {mdprop.__version__}\n"


def test_table_without_parameters_names_the_sets(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "table") == 0
    text = capsys.readouterr().out
    assert "middle" in text
    assert "ε" not in text
    assert max(map(len, text.split("\n"))) <= 100


def test_table_shows_the_intervals_beside_the_metrics(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    better = Comparison(Interval(0.05, 0.01, 0.1), None)
    found = Intervals(
        {"mdprop": {"clean": Interval(0.8, 0.754, 0.843)}}, {"standard": {"mdprop": {"clean": better}}}
    )
    path = project / "report" / "intervals.json"
    path.write_text(intervals_json(found))
    assert run(monkeypatch, "table") == 0
    text = capsys.readouterr().out
    assert text.count("75–84") == 1
    assert text.partition("Recall@1 in %")[0].count("*") == 1
    path.write_text(sealed_json({}))
    assert run(monkeypatch, "table") == 2
    assert (
        "intervals.json does not hold the intervals of a report: run `dvc repro`" in capsys.readouterr().err
    )


def test_table_takes_the_attacks_from_the_parameters(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = {"single_target_middle": {"goal": "multi_target", "epsilon": 0.125}}
    write_params(project, {"units": "normalized", "sets": sets})
    assert run(monkeypatch, "table", "--metrics", "report/metrics.json") == 0
    text = capsys.readouterr().out
    assert "ε 0.125" in text
    assert "multi-" in text
    assert "standard deviations" in text


def test_table_shows_branches_as_rows(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = project / "report" / "metrics.json"
    metrics = json.loads(path.read_text())
    metrics["mdprop@clean+25%multi_target"] = metrics["mdprop"]
    path.write_text(json.dumps(metrics))
    write_params(project, {})
    assert run(monkeypatch, "table") == 0
    text = capsys.readouterr().out
    assert "\nmdprop@clean+25%multi_target " in text
    assert "A row method@branch" in text


def test_user_mistakes_are_one_line_and_exit_code_2(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "table", "--metrics", "none.json") == 2
    assert capsys.readouterr().err == "error: none.json not found: run `dvc repro`\n"
    (project / "baseline.json").write_text("{")
    assert run(monkeypatch, "check", "--baseline", "baseline.json") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: baseline.json is not valid JSON")
    assert error.count("\n") == 1
    assert run(monkeypatch, "check") == 2


def test_check_passes_and_then_sees_a_metric_worsened_on_purpose(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("check", "--baseline", "baselines/smoke.json")
    assert run(monkeypatch, *arguments, "--update") == 0
    assert run(monkeypatch, *arguments) == 0
    assert capsys.readouterr().err == ""
    edit_metrics(project, "mdprop", "clean", 0.5)
    assert run(monkeypatch, *arguments) == 1
    error = capsys.readouterr().err
    baseline = json.loads((project / "baselines" / "smoke.json").read_text())
    expected = baseline["metrics"]["mdprop"]["clean"]["recall_at_1"]
    assert error == (
        f"FAILED mdprop.clean.recall_at_1: value 0.5000, baseline {expected:.4f}, tolerance 0.02\n"
    )


def test_check_has_a_line_a_failure(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("check", "--baseline", "b.json", "--metrics", "report/metrics.json")
    assert run(monkeypatch, *arguments, "--update") == 0
    edit_metrics(project, "at", "clean", None)
    edit_metrics(project, "at", "untargeted_middle", 0.0)
    edit_metrics(project, "standard", "clean", 0.99)
    capsys.readouterr()
    assert run(monkeypatch, *arguments) == 1
    output = capsys.readouterr()
    assert [line.split(":")[0] for line in output.err.splitlines()] == [
        "FAILED at.clean.recall_at_1",
        "FAILED at.untargeted_middle.recall_at_1",
    ]
    assert "missing or not a number" in output.err
    assert output.out.startswith("note: standard.clean.recall_at_1")


def test_empty_metrics_fail(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "check", "--baseline", "b.json", "--update") == 0
    (project / "report" / "metrics.json").write_text("{}")
    assert run(monkeypatch, "check", "--baseline", "b.json") == 1


def test_update_keeps_the_tolerances(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "b.json").write_text('{"tolerance": {"at.*.nmi": 0.1}}')
    assert run(monkeypatch, "check", "--baseline", "b.json", "--update") == 0
    baseline = json.loads((project / "b.json").read_text())
    assert baseline["tolerance"] == {"at.*.nmi": 0.1}
    assert list(baseline["metrics"]) == ["at"]


@pytest.mark.parametrize(
    ("option", "branch"),
    [
        ((), "clean"),
        (("--branch", "multi_target"), "multi_target"),
        (("--branch", "clean+25%multi_target"), "clean+25%multi_target"),
    ],
)
def test_export_translates_its_arguments(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], option: tuple[str, ...], branch: str
) -> None:
    calls: list[tuple[Path, Path, str]] = []
    deploy = types.ModuleType("mdprop.deploy")

    def export_model(*arguments: Any) -> types.SimpleNamespace:
        calls.append(arguments)
        return types.SimpleNamespace(images=100)

    deploy.export_model = export_model  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mdprop.deploy", deploy)
    assert run(monkeypatch, "export", "runs/mdprop/0/model", "net.pth", *option) == 0
    assert calls == [(Path("runs/mdprop/0/model"), Path("net.pth"), branch)]
    assert capsys.readouterr().out.startswith("wrote net.pth, and net.pth.preprocessing.json beside it\n")


def test_duplicates_lists_what_looks_alike(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("imagehash")
    for seed, split in enumerate(("train", "test")):
        small_store(project / "prepared" / f"{split}.arrow", classes=2, images=1, seed=seed)
    assert run(monkeypatch, "duplicates", "prepared", "--distance", "16") == 0
    *pairs, last = capsys.readouterr().out.splitlines()
    assert last == f"{len(pairs)} pair(s) across splits and 0 within one, of 16 bits or fewer"
    assert all(re.fullmatch(r"\d/0.png \(train\) ~ \d/0.png \(test\), \d+ bits", pair) for pair in pairs)
    assert pairs
    assert run(monkeypatch, "duplicates", "prepared", "--distance", "40") == 2
    assert run(monkeypatch, "duplicates", "gone") == 2
    assert capsys.readouterr().err.count("error: ") == 2
