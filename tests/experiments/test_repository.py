"""What is read of a real project of git and DVC, whose pipeline was not run but written."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from mdprop.cli import app
from mdprop.errors import MDPropError, ParameterError, ResultError
from mdprop.experiments.repository import Experiment, experiments_of_head, read_experiments
from mdprop.files import sealed_json
from mdprop.runs import Run
from tests.report.synthetic import write_hits

GIT = ("git", "-c", "user.name=test", "-c", "user.email=test@localhost", "-c", "init.defaultBranch=main")
PARAMS: dict[str, Any] = {
    "seeds": [0],
    "methods": {"clean": ["standard"], "multi_target": ["mdprop"]},
    "recipes": {"standard": None, "mdprop": None, "unused": [{"goal": "single_target"}]},
    "dataset": {"name": "glyphs", "train_fraction": 1.0},
    "datasets": {"glyphs": {"resize": 32}, "folder": {"resize": 64}},
    "attack": {"targets": 5},
}
PIPELINE = {
    "stages": {
        "prepare": {
            "cmd": "true",
            "params": ["dataset", "datasets.${dataset.name}"],
            "outs": ["data/prepared/${dataset.name}"],
        },
        "evaluate": {
            "foreach": ["standard", "mdprop"],
            "do": {"cmd": "true", "outs": ["runs/${item}/0/queries.parquet"]},
        },
        "report": {
            "cmd": "true",
            "params": ["seeds", "methods", "recipes", "dataset.name", "datasets.${dataset.name}", "attack"],
            "outs": [{"report/metrics.json": {"cache": False}}],
        },
    }
}


class Project:
    def __init__(self, path: Path) -> None:
        self.path = path

    def git(self, *arguments: str) -> None:
        subprocess.run([*GIT, *arguments], cwd=self.path, check=True, capture_output=True)

    def write(self, recalls: Mapping[str, float], first: int = 0, **changes: Any) -> None:
        """Parameters and results of a run, by method; changes: attack={"targets": 2}."""
        from dvc.repo import Repo

        params = {**PARAMS, **changes}
        with (self.path / "params.yaml").open("w") as file:
            YAML().dump(params, file)
        for method, recall in recalls.items():
            write_hits(Run(method, 0, self.path / "runs"), {"clean": recall, "worst_case": recall / 2}, first)
        prepared = self.path / "data" / "prepared" / params["dataset"]["name"]
        prepared.mkdir(parents=True, exist_ok=True)
        (prepared / "manifest.json").write_text(sealed_json(manifest(params, first)))
        (self.path / "report").mkdir(exist_ok=True)
        (self.path / "report" / "metrics.json").write_text(json.dumps(recalls))
        with Repo() as repo:
            repo.commit(force=True)

    def save(self, name: str) -> None:
        """What was written as an experiment."""
        from dvc.repo import Repo

        with Repo() as repo:
            repo.experiments.save(name=name, include_untracked=["dvc.lock"])


def read(*revisions: str) -> list[Experiment]:
    found = list(read_experiments(revisions))
    assert not [each for each in found if isinstance(each, MDPropError)]
    return [each for each in found if isinstance(each, Experiment)]


def error_of(revision: str) -> MDPropError:
    (found,) = read_experiments([revision])
    assert isinstance(found, MDPropError)
    assert "\n" not in str(found)
    return found


def manifest(params: Mapping[str, Any], first: int) -> dict[str, Any]:
    def split(images: int, digest: str) -> dict[str, Any]:
        return {"images": images, "classes": 20, "sha256": digest}

    name, fraction = params["dataset"]["name"], params["dataset"]["train_fraction"]
    return {
        "name": name,
        "settings": {**params["datasets"][name], "train_fraction": fraction, "fraction_of": "images"},
        "splits": {
            "train": split(first, "train"),
            "val": split(0, "val"),
            "test": split(200, f"{name} from {first}"),
        },
        "skipped": [],
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """HEAD~1 without results, HEAD, and its experiments two, half and other, as the working folder."""
    project = Project(tmp_path_factory.mktemp("project"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project.path)
        make(project)
        yield project


def make(project: Project) -> None:
    from dvc.repo import Repo

    project.git("init", "--quiet")
    Repo.init(str(project.path)).close()
    with (project.path / "dvc.yaml").open("w") as file:
        YAML().dump(PIPELINE, file)
    (project.path / ".gitignore").write_text("/runs\n/data\n")
    with (project.path / "params.yaml").open("w") as file:
        YAML().dump(PARAMS, file)
    project.git("add", ".")
    project.git("commit", "--quiet", "--message", "empty")
    project.write({"standard": 0.8, "mdprop": 0.7})
    project.git("add", ".")
    project.git("commit", "--quiet", "--message", "results")
    project.write({"standard": 0.8, "mdprop": 0.9}, attack={"targets": 2})
    project.save("two")
    project.write({"standard": 0.5, "mdprop": 0.6}, 40, dataset={"name": "glyphs", "train_fraction": 0.5})
    project.save("half")
    project.write({"standard": 0.5, "mdprop": 0.6}, dataset={"name": "folder", "train_fraction": 1.0})
    project.save("other")


def test_an_experiment_has_its_own_results_and_parameters(made: Project) -> None:
    head, two = read("HEAD", "two")
    assert (head.name, two.name) == ("HEAD", "two")
    assert len(head.commit) == 7 and head.commit != two.commit
    assert (head.parameters["attack.targets"], two.parameters["attack.targets"]) == (5, 2)
    for found, recall in ((head, 0.7), (two, 0.9)):
        assert {row: list(sets) for row, sets in found.results.items()} == {
            "standard": ["clean", "worst_case"],
            "mdprop": ["clean", "worst_case"],
        }
        assert found.results["mdprop"]["clean"][0].hits.mean() == pytest.approx(recall)


def test_parameters_are_those_that_the_results_were_made_with(made: Project) -> None:
    (head,) = read("HEAD")
    assert dict(head.parameters) == {
        "datasets.<name>.resize": 32,
        "dataset.name": "glyphs",
        "dataset.train_fraction": 1.0,
        "seeds": [0],
        "methods.clean": ["standard"],
        "methods.multi_target": ["mdprop"],
        "recipes.standard": None,
        "recipes.mdprop": None,
        "attack.targets": 5,
    }


def test_the_workspace_is_what_was_written_last(made: Project) -> None:
    workspace, other = read("workspace", "other")
    assert workspace.commit == ""
    assert workspace.parameters == other.parameters


def test_images_whose_ids_have_moved_are_found_again(made: Project) -> None:
    head, half, other = read("HEAD", "half", "other")
    assert half.images.are(head.images) and head.images.are(half.images)
    assert not other.images.are(head.images)
    ids = [e.results["standard"]["clean"][0].ids for e in (head, half)]
    assert ids[0].tolist() == ids[1].tolist() == list(range(200))


def test_what_cannot_be_read_is_one_line(
    made: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert str(error_of("nope")).startswith("unknown revision 'nope': ")
    assert isinstance(error_of("nope"), ParameterError)
    assert str(error_of("HEAD~1")).startswith("HEAD~1 has no results: ")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ParameterError, match=r"is in no DVC project: change to the project's folder$"):
        list(read_experiments(["HEAD"]))


def test_results_that_are_not_in_the_cache_are_one_line(
    made: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(["git", "clone", "--quiet", made.path, tmp_path / "copy"], check=True, capture_output=True)
    monkeypatch.chdir(tmp_path / "copy")
    error = error_of("HEAD")
    assert isinstance(error, ResultError)
    assert str(error) == (
        "HEAD: runs/standard/0/queries.parquet is not in DVC's cache: "
        "`dvc pull`, or running the experiment again, brings it back"
    )


def test_results_of_another_version_are_one_line(
    made: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(made.path, tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    Run("mdprop", 0).queries.unlink()
    Run("mdprop", 0).queries.write_bytes(b"old")
    message = str(error_of("workspace"))
    assert message.startswith("workspace: runs/mdprop/0/queries.parquet ")
    assert message.endswith("`dvc pull`, or `dvc repro`, brings it")


def test_without_git_there_are_no_revisions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dvc.repo import Repo

    monkeypatch.chdir(tmp_path)
    Repo.init(no_scm=True).close()
    with pytest.raises(ParameterError, match=r"has no git repository, and so no revisions to compare$"):
        list(read_experiments(["HEAD", "workspace"]))
    with pytest.raises(ParameterError, match="experiments need a git repository"):
        experiments_of_head()


def test_the_experiments_of_head(made: Project) -> None:
    names, notes = experiments_of_head()
    assert sorted(names) == ["half", "other", "two"]
    assert notes == []


def run(*arguments: str) -> None:
    from typer.main import get_command

    get_command(app).main(["compare", *arguments], prog_name="mdprop", standalone_mode=False)


def test_the_command_prints_and_writes(
    made: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("--all", "--csv", str(tmp_path / "a.csv"), "--html", str(tmp_path / "a.html"))
    text = capsys.readouterr().out
    assert "note: other and HEAD were tested on other images" in text
    assert f"wrote {tmp_path / 'a.csv'}" in text
    assert (tmp_path / "a.csv").read_text().startswith("experiment,commit,")
    assert (tmp_path / "a.html").read_text().startswith("<!DOCTYPE html>")
    rows = [line.split(",")[0] for line in (tmp_path / "a.csv").read_text().splitlines()[1:]]
    assert next(iter(dict.fromkeys(rows))) == "HEAD"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name two revisions or more"),
        (["--all", "HEAD"], "name two revisions or more"),
        (["HEAD"], "each once, not HEAD$"),
        (["HEAD", "two", "HEAD"], "each once, not HEAD, two, HEAD$"),
        (["HEAD", "nope"], "unknown revision 'nope'"),
        (["HEAD", "HEAD~1"], "HEAD~1 has no results"),
    ],
)
def test_mistakes_of_the_command(made: Project, arguments: Sequence[str], message: str) -> None:
    with pytest.raises(MDPropError, match=message):
        run(*arguments)


def test_what_has_no_results_is_left_out_of_all(
    monkeypatch: pytest.MonkeyPatch, made: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "mdprop.experiments.repository.experiments_of_head", lambda: (["HEAD~1", "two"], ["x is queued"])
    )
    run("--all")
    text = capsys.readouterr().out
    assert text.startswith("note: x is queued\nnote: HEAD~1 has no results: ")
    monkeypatch.setattr("mdprop.experiments.repository.experiments_of_head", lambda: (["HEAD~1"], []))
    with pytest.raises(ResultError, match="only 1 has results, too few to compare; HEAD~1 has no results"):
        run("--all")
