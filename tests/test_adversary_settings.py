"""Attacks on other branches and on other runs, in params.yaml."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mdprop.config import load_params
from mdprop.config.schema import Params
from mdprop.errors import ParameterError
from tests.helpers import PROJECT
from tests.pipeline.conftest import set_params


def load_with(folder: Path, **values: Any) -> Params:
    """The project's parameters with other sets of attacks and sources."""
    path = folder / "params.yaml"
    path.write_text((PROJECT / "params.yaml").read_text())
    set_params(path, {key.replace("__", "."): value for key, value in values.items()})
    return load_params(path)


def attack(**means: Any) -> dict[str, Any]:
    return {"goal": "untargeted", **means}


@pytest.mark.parametrize("branch", ["clean", "multi_target", "clean+25%single_target", "all"])
def test_attacks_on_branches_that_some_method_has(tmp_path: Path, branch: str) -> None:
    sets = {"own": attack(), "other": attack(branch=branch)}
    found = load_with(tmp_path, adversary__sets=sets).adversary.sets
    assert (found["own"].branch, found["other"].branch) == (None, branch)


def test_attacks_on_other_runs(tmp_path: Path) -> None:
    sets = {
        "own": attack(),
        "a": attack(source="at/0"),
        "b": attack(source="mdprop/1", branch="multi_target"),
    }
    params = load_with(tmp_path, seeds=[0, 1], adversary__sources=["at/0", "mdprop/1"], adversary__sets=sets)
    assert params.adversary.sources == ("at/0", "mdprop/1")
    assert params.adversary.sets["b"].source == "mdprop/1"


@pytest.mark.parametrize(
    ("sources", "means", "message"),
    [
        (
            [],
            {"branch": "multi"},
            r"adversary\.sets\.x\.branch = 'multi': there are: clean, multi_tar",
        ),
        ([], {"branch": "clean+0%multi_target"}, r"adversary\.sets\.x\.branch = .* is no batch-norm branch"),
        ([], {"source": "at/0"}, r"adversary\.sets\.x\.source = 'at/0': add it to adversary\.sources"),
        (["at"], {"source": "at"}, "at"),
        (
            ["at/7"],
            {"source": "at/7"},
            r"x\.source = 'at/7': none of the runs .*standard/0, .*; name one",
        ),
        (
            ["at/0"],
            {"source": "at/0", "branch": "multi_target"},
            r"x\.branch = 'multi_target': there are: clean$",
        ),
        (["at/0"], {"source": "at/0", "branch": "all"}, r"x\.branch = 'all': there are: clean$"),
        (["at/0"], {}, r"no set has the source 'at/0'; leave it out"),
        (["at/0", "at/0"], {"source": "at/0"}, r"names a run twice"),
    ],
)
def test_attacks_that_cannot_be(
    tmp_path: Path, sources: list[str], means: dict[str, Any], message: str
) -> None:
    sets = {"own": attack(), "x": attack(**means)}
    with pytest.raises(ParameterError, match=message):
        load_with(tmp_path, adversary__sources=sources, adversary__sets=sets)


@pytest.mark.parametrize("means", [{"branch": "all"}, {"branch": "multi_target"}, {"source": "at/0"}])
def test_each_method_needs_an_attack_on_itself(tmp_path: Path, means: dict[str, Any]) -> None:
    sources = ["at/0"] if "source" in means else []
    with pytest.raises(
        ParameterError, match=r"adversary\.sets: none is an attack on standard/0 itself; add one"
    ):
        load_with(tmp_path, adversary__sources=sources, adversary__sets={"x": attack(**means)})


def test_no_branch_of_a_method_may_be_called_all(tmp_path: Path) -> None:
    recipes = {"mine": [{"goal": "single_target", "branch": "all"}]}
    with pytest.raises(ParameterError, match=r"branch = 'all': stands for every branch"):
        load_with(tmp_path, recipes=recipes)
