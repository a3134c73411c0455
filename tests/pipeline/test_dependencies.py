"""The dependency lists of dvc.yaml against what the stages import."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
STAGES = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
# They decide what is said, checked or shown, or who computes it, never a result: parameters are tracked
# by value, and several processes give the result of one.
NO_RESULT = {
    ROOT / "mdprop" / f"{name}.py"
    for name in ("__init__", "errors", "runtime", "files", "processes", "distributed")
} | set((ROOT / "mdprop" / "config").glob("*.py"))
# Training shows validation Recall@1 and does nothing with it: a new metric must not train again.
SHOWN_ONLY = {"train": "mdprop/metrics/"}


def imported_files(file: Path) -> set[Path]:
    """The project's files that a file imports, anywhere in it, with the packages on the way."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] not in ("mdprop", "stages"):
                continue
            for end in range(1, len(parts) + 1):
                path = ROOT.joinpath(*parts[:end])
                found |= {p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()}
    return found


def closure(file: Path) -> set[str]:
    seen, pending = {file}, [file]
    while pending:
        new = {path for path in imported_files(pending.pop()) if path not in NO_RESULT} - seen
        seen |= new
        pending += new
    return {str(path.relative_to(ROOT)) for path in seen if ast.parse(path.read_text()).body[1:]}


def declared(stage: str) -> set[str]:
    files = set()
    for dependency in STAGES[stage]["deps"]:
        path = ROOT / dependency
        if dependency.startswith(("mdprop", "stages")):
            assert path.exists(), f"{stage}: {dependency} is not there"
            files |= set(path.rglob("*.py") if path.is_dir() else [path])
    return {str(path.relative_to(ROOT)) for path in files if ast.parse(path.read_text()).body[1:]}


@pytest.mark.parametrize("stage", STAGES)
def test_dependencies_are_the_modules_that_decide_the_result(stage):
    module = STAGES[stage]["cmd"].split()[2]
    needed = closure(ROOT / (module.replace(".", "/") + ".py"))
    shown = SHOWN_ONLY.get(module.removeprefix("stages."), "none")
    assert declared(stage) == {file for file in needed if not file.startswith(shown)}


def test_the_families_differ_in_their_methods_only():
    for name in ("attack", "embed", "evaluate"):
        family = [STAGES[f"{name}-{f}"] for f in ("clean", "single-target", "multi-target")]
        plain = [{key: value for key, value in stage.items() if key != "matrix"} for stage in family]
        assert plain[0] == plain[1] == plain[2]
