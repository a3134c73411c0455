"""A stage reads the parameters that its entry in dvc.yaml declares, and no others."""

from __future__ import annotations

import importlib
import shutil
from typing import Any

import pytest
from pydantic import BaseModel
from typer.testing import CliRunner

import mdprop.config
from mdprop.config import load_params
from tests.pipeline.conftest import Project, set_params

STAGES = [
    "prepare",
    "preflight",
    "train-clean@standard-0",
    "train-single-target@at-0",
    "train-multi-target@mdprop-0",
    "attack-clean@standard-0",
    "attack-multi-target@mdprop-0",
    "embed-multi-target@mdprop-0",
    "evaluate-multi-target@mdprop-0",
    "report",
]


SAID = ["methods", "seeds"]
"""What every stage may read to say which run of how many it is: it decides what is said and no result."""


@pytest.fixture(scope="module")
def copied(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of the project that has run, for stages to be run again in."""
    path = tmp_path_factory.mktemp("copied") / "project"
    shutil.copytree(project.path, path, symlinks=True)
    set_params(path / "params.yaml", {"train.epochs": 1, "train.validate_every": 1})
    return Project(path)


def declared(project: Project, name: str) -> tuple[list[str], str]:
    """The parameter paths that DVC tracks for a stage, and its command."""
    from dvc.dependency import ParamsDependency
    from dvc.repo import Repo

    with Repo(str(project.path)) as repo:
        (stage,) = (stage for stage in repo.index.stages if stage.name == name)
        paths = [path for dep in stage.deps if isinstance(dep, ParamsDependency) for path in dep.params]
        return paths, stage.cmd


def restrict(section: Any, paths: list[str]) -> Any:
    """A copy of a section without the keys that no path leads to; reading one is an AttributeError."""
    if "" in paths or not isinstance(section, (BaseModel, dict)):
        return section
    kept: dict[str, Any] = {}
    for key, value in section.items() if isinstance(section, dict) else section:
        below = [p[len(key) + 1 :] for p in paths if p == key or p.startswith(f"{key}.")]
        if below:
            kept[key] = restrict(value, below)
    return kept if isinstance(section, dict) else type(section).model_construct(**kept)


def run_restricted(project: Project, name: str, monkeypatch: pytest.MonkeyPatch, without: str = "") -> Any:
    """Run a stage in this process with only the parameters that it declares, and `without` one of them."""
    paths, command = declared(project, name)
    assert without in ("", *paths)
    paths = [path for path in (*paths, *SAID) if path != without]
    monkeypatch.chdir(project.path)
    monkeypatch.setattr(mdprop.config, "load_params", lambda path: restrict(load_params(path), paths))
    _, _, module, *arguments = command.split()
    app = importlib.import_module(module).app
    return CliRunner().invoke(app, arguments)


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_reads_what_it_declares_and_nothing_else(
    copied: Project, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run_restricted(copied, name, monkeypatch)
    assert done.exit_code == 0, done.exception


@pytest.mark.parametrize(
    ("name", "without"),
    [
        ("train-single-target@at-0", "attack.epsilon"),
        ("train-multi-target@mdprop-0", "recipes.mdprop"),
        ("attack-clean@standard-0", "adversary"),
        ("evaluate-multi-target@mdprop-0", "evaluate"),
        ("report", "methods"),
    ],
)
def test_a_stage_that_reads_more_would_be_noticed(
    copied: Project, name: str, without: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run_restricted(copied, name, monkeypatch, without)
    assert isinstance(done.exception, AttributeError), done.exception


def test_every_parameter_that_is_declared_is_there(project: Project) -> None:
    from dvc.dependency import ParamsDependency
    from dvc.repo import Repo

    plain = project.read_params()
    with Repo(str(project.path)) as repo:
        deps = [dep for stage in repo.index.stages for dep in stage.deps if isinstance(dep, ParamsDependency)]
    assert deps
    for path in {path for dep in deps for path in dep.params}:
        section = plain
        for key in path.split("."):
            assert key in section, path
            section = section[key]
