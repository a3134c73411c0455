"""A copy of the project in which the whole pipeline has run once, at smoke scale."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
COPIED = (
    "mdprop",
    "stages",
    "baselines",
    "surrogates",
    ".dvc",
    "dvc.yaml",
    "params.yaml",
    ".dvcignore",
    ".gitignore",
)
GIT = ("git", "-c", "user.name=test", "-c", "user.email=test@localhost")


class Project:
    """The copy, and what DVC says of it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the project; `dvc` and `python` are those of this environment."""
        env = {k: v for k, v in os.environ.items() if k not in ("DVC_STAGE", "PYTHONPATH")}
        env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
        return subprocess.run(command, cwd=self.path, env=env, capture_output=True, text=True)

    def repro(self, *arguments: str) -> set[str]:
        """`dvc repro`; the stages that ran."""
        done = self.run("dvc", "repro", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        marker = "Running stage '"
        return {line.split("'")[1] for line in done.stdout.splitlines() if line.startswith(marker)}

    def read_params(self) -> Any:
        return YAML(typ="safe").load((self.path / "params.yaml").read_text())

    def would_run(self) -> set[str]:
        """The stages that DVC finds changed, and all that follow from them.

        None follows from preflight alone, whose output is always the same.
        """
        from dvc.repo import Repo

        with Repo(str(self.path)) as repo:
            changed = {name.split(":")[-1] for name in repo.status()}
            graph = repo.index.graph  # from a stage to those that it depends on
            after = {stage.name: {s.name for s in _reachable(graph, stage)} for stage in graph}
            return {name for name, before in after.items() if changed & (before - ({"preflight"} - {name}))}

    @contextmanager
    def params(self, **values: Any) -> Iterator[None]:
        """Change parameters for a while: params(attack__targets=4)."""
        file = self.path / "params.yaml"
        before = file.read_text()
        set_params(file, {key.replace("__", "."): value for key, value in values.items()})
        try:
            yield
        finally:
            file.write_text(before)

    @contextmanager
    def edited(self, name: str) -> Iterator[None]:
        """Add a line to a source file for a while."""
        file = self.path / name
        before = file.read_text()
        file.write_text(before + "\n# edited\n")
        try:
            yield
        finally:
            file.write_text(before)


def _reachable(graph: Any, node: Any) -> set[Any]:
    seen, pending = {node}, [node]
    while pending:
        for after in graph.successors(pending.pop()):
            if after not in seen:
                seen.add(after)
                pending.append(after)
    return seen


def set_params(file: Path, values: dict[str, Any]) -> None:
    yaml = YAML()
    content = yaml.load(file.read_text())
    for path, value in values.items():
        *sections, key = path.split(".")
        section = content
        for name in sections:
            section = section[name]
        assert key in section, path
        section[key] = value
    with file.open("w") as out:
        yaml.dump(content, out)


def smoke_params() -> dict[str, Any]:
    words = (ROOT / "baselines" / "smoke.args").read_text().split()
    return {key: YAML(typ="safe").load(value) for key, value in (w.split("=") for w in words if w != "-S")}


def copy_project(path: Path, values: dict[str, Any]) -> Project:
    """A copy of the project with other parameters, as a git repository with one commit."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "cache", "tmp", "config.local")
            shutil.copytree(source, path / name, ignore=ignored)
        else:
            shutil.copy(source, path / name)
    set_params(path / "params.yaml", values)
    copy = Project(path)
    for command in (("init", "--quiet"), ("add", "."), ("commit", "--quiet", "--message", "copy")):
        done = copy.run(*GIT, *command)
        assert done.returncode == 0, done.stderr
    return copy


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    copy = copy_project(tmp_path_factory.mktemp("project"), smoke_params())
    copy.repro()
    return copy
