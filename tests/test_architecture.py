"""The shape of the project: which way imports go, how long files are, what --help costs."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
MODULES = sorted((PROJECT / "mdprop").rglob("*.py"))
STAGES = sorted(path for path in (PROJECT / "stages").glob("*.py") if path.stem != "__init__")
COMMANDS = [path for path in sorted((PROJECT / "mdprop" / "cli").glob("*.py")) if path.stem != "__init__"]

# A module imports from lower levels, and from its own package, only.
LEVELS = {
    "errors": 0,
    "seals": 0,
    "arrays": 1,
    "branches": 1,
    "files": 1,
    "settings": 1,
    "runtime": 2,
    "statistics": 2,
    "attacks": 3,
    "corruptions": 3,
    "layers": 3,
    "losses": 3,
    "metrics": 3,
    "methods": 4,
    "parallel": 5,
    "runs": 5,
    "data": 6,
    "config": 7,
    "models": 8,
    "presets": 8,
    "deploy": 9,
    "report": 9,
    "robustness": 9,
    "training": 9,
    "experiments": 10,
    "library": 10,
    "preflight": 10,
    "regression": 10,
    "study": 10,
    "cli": 11,
    "__main__": 12,
}
HEAVY = {
    "dvc",
    "dvclive",
    "faiss",
    "jinja2",
    "matplotlib",
    "numpy",
    "pandas",
    "pyarrow",
    "pydantic",
    "ruamel",
    "scipy",
    "sklearn",
    "timm",
    "torch",
    "torchvision",
}


def parts(path: Path) -> tuple[str, ...]:
    """("data", "store") for mdprop/data/store.py, ("data",) for the package, () for mdprop itself."""
    names = path.relative_to(PROJECT / "mdprop").with_suffix("").parts
    return names[:-1] if names[-1] == "__init__" else names


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import below a node, absolute ones only."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            assert node.module
            if node.module in ("mdprop", "stages"):
                yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, node.module


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_imports_go_one_way(path: Path) -> None:
    names = parts(path)
    for line, name in imported(ast.parse(path.read_text())):
        root, *rest = name.split(".")
        assert root not in ("stages", "tests"), f"line {line}: the library imports {name}"
        if root != "mdprop" or not rest:
            continue
        if names and rest[0] != names[0]:
            assert LEVELS[rest[0]] < LEVELS[names[0]], f"line {line}: {names[0]} imports {rest[0]}"


def test_every_module_has_a_level() -> None:
    assert {parts(path)[0] for path in MODULES if parts(path)} == set(LEVELS)


def test_files_are_short() -> None:
    lines = {path: len(path.read_text().splitlines()) for path in [*MODULES, *STAGES]}
    assert not [path.name for path, count in lines.items() if count > (90 if path in STAGES else 320)]


@pytest.mark.parametrize("path", [*STAGES, *COMMANDS], ids=lambda path: path.stem)
def test_commands_import_heavy_modules_inside_their_functions_only(path: Path) -> None:
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if not isinstance(node, ast.FunctionDef)]
    roots = {name.split(".")[0] for _, name in imported(tree)}
    assert not roots & HEAVY
    library = {name for _, name in imported(tree) if name.startswith("mdprop")}
    assert library <= {"mdprop.cli.app", "mdprop.errors", "mdprop.parallel.launch", "mdprop.runtime.entrance"}


@pytest.mark.parametrize("module", ["mdprop", *(f"stages.{path.stem}" for path in STAGES)])
def test_help_is_quick_and_imports_nothing_heavy(module: str) -> None:
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", module, "--help"],
        cwd=PROJECT,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=True,
    )
    seconds = time.monotonic() - start
    assert "Usage: " in done.stdout
    loaded = {line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    assert "typer" in loaded
    assert not loaded & HEAVY
    assert seconds < 2
