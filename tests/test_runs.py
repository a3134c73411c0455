from __future__ import annotations

from pathlib import Path

import pytest

from mdprop.errors import ResultError
from mdprop.files import sealed_json
from mdprop.runs import Run, runs_of


def described(folder: Path, branches: list[str]) -> Run:
    run = Run("mdprop", 3, folder)
    run.folder.mkdir(parents=True)
    (run.folder / "model.json").write_text(sealed_json({"build": {"branches": branches}}))
    return run


def test_where_files_are() -> None:
    run = Run("mdprop", 3)
    assert str(run.folder) == "runs/mdprop/3"
    assert str(run.adversarial("clean", "a")) == "runs/mdprop/3/adversarial/a.arrow"
    assert str(run.adversarial("multi_target", "a")) == "runs/mdprop/3/adversarial/multi_target/a.arrow"
    assert str(run.embeddings("clean+25%b", "a")) == "runs/mdprop/3/embeddings/clean+25%b/a.parquet"
    assert str(run.live) == "live/mdprop/3"


def test_a_model_answers_through_the_branches_that_it_has(tmp_path: Path) -> None:
    run = described(tmp_path, ["clean", "near"])
    wanted = ["near", "clean", "far", "clean+50%near", "clean+50%far"]
    assert run.answering(wanted) == ["near", "clean", "clean+50%near"]
    assert run.answering(["far"]) == ["clean"]


def test_a_model_without_a_description_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"model\.json not found: run dvc repro$"):
        Run("mdprop", 0, tmp_path).answering(["clean"])


def test_which_of_the_runs_it_is() -> None:
    runs = runs_of(["standard", "mdprop"], [0, 3])
    assert list(map(str, runs)) == ["standard/0", "standard/3", "mdprop/0", "mdprop/3"]
    assert Run("mdprop", 0).among(runs) == "mdprop/0, run 3 of 4"
    assert Run("at", 0).among(runs) == "at/0"
