"""The dependency lists of dvc.yaml against what the stages import."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
STAGES = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
# They decide what is said, checked or shown, where files lie or who computes, never a result: parameters
# are tracked by value, and several processes give the result of one.
NO_RESULT = {
    ROOT / "mdprop" / f"{name}.py" for name in ("__init__", "errors", "files", "runs", "seals", "settings")
} | {
    path
    for name in ("config", "parallel", "runtime")
    for path in (ROOT / "mdprop" / name).glob("*.py")
    if path.name != "rows.py"
}
# Training shows validation Recall@1 and does nothing with it: a new metric must not train again.
SHOWN_ONLY = {"train": ("mdprop/arrays.py", "mdprop/metrics/")}


def imported_files(file: Path) -> set[Path]:
    """The project's files that a file imports, anywhere in it, with the packages on the way."""
    found = set()
    tree = ast.parse(file.read_text())
    tree.body = [node for node in tree.body if ast.unparse(node).split("\n")[0] != "if TYPE_CHECKING:"]
    for node in ast.walk(tree):
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


def declared(stage: str) -> list[Path]:
    paths = [ROOT / name for name in STAGES[stage]["deps"] if name.startswith(("mdprop", "stages"))]
    assert [path for path in paths if not path.exists()] == []
    return paths


@pytest.mark.parametrize("stage", STAGES)
def test_dependencies_are_the_modules_that_decide_the_result(stage):
    module = STAGES[stage]["cmd"].split()[2]
    shown = SHOWN_ONLY.get(module.removeprefix("stages."), ("none",))
    needed = {f for f in closure(ROOT / (module.replace(".", "/") + ".py")) if not f.startswith(shown)}
    listed = declared(stage)
    missing = [f for f in needed if not any((ROOT / f).is_relative_to(path) for path in listed)]
    assert missing == []
    idle = [path for path in listed if not any((ROOT / f).is_relative_to(path) for f in needed)]
    assert idle == []


def test_the_families_differ_in_their_methods_only():
    for name in ("attack", "embed", "evaluate"):
        family = [STAGES[f"{name}-{f}"] for f in ("clean", "single-target", "multi-target")]
        plain = [{key: value for key, value in stage.items() if key != "matrix"} for stage in family]
        assert plain[0] == plain[1] == plain[2]
