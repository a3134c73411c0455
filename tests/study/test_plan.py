from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mdprop.errors import ParameterError
from mdprop.study.plan import Study, Unit, project_params, read_study, settings, unit_params, units
from tests.helpers import PROJECT

PARAMS = PROJECT / "params.yaml"


def study(**changes: Any) -> Study:
    runs = {"a": {"methods": ["standard", "mdprop"], "seeds": [0, 1]}}
    return Study.model_validate({"about": "x", "runs": runs, **changes})


def runs(**changes: Any) -> str:
    """A study.yaml of one group."""
    group = {"methods": ["at"], "seeds": [0], **changes}
    return json.dumps({"about": "x", "runs": {"a": group}})


def test_every_method_seed_and_point_is_a_run() -> None:
    grid = {"attack.epsilon": [0.02, "4/255"], "train.epochs": [1]}
    runs = {
        "a": {"methods": ["at", "mdprop"], "seeds": [0, 1], "grid": grid},
        "b": {"methods": ["at"], "seeds": [2]},
    }
    found = [str(unit) for unit in units(study(runs=runs))]
    assert len(found) == len(set(found)) == 2 * 2 * 2 + 1
    assert found[0] == "a/attack.epsilon=0.02,train.epochs=1/at/0"
    assert found[1] == "a/attack.epsilon=4-255,train.epochs=1/at/0"
    assert found[-1] == "b/at/2"


def test_first_seeds_come_first() -> None:
    assert [unit.seed for unit in units(study())] == [0, 0, 1, 1]


def test_a_run_has_its_method_and_seed_alone_and_all_values() -> None:
    grid = {"attack.epsilon": [0.5]}
    runs = {"a": {"methods": ["mdprop"], "seeds": [3], "params": {"train.epochs": 5}, "grid": grid}}
    plan = study(
        runs=runs,
        params={"train.epochs": 4, "train.batch_size": 32, "dataset.name": "glyphs"},
        presets=["photographs", "weak"],
    )
    content, params = unit_params(plan, next(units(plan)), project_params(PARAMS))
    assert content["seeds"] == [3]
    assert content["methods"] == {"clean": [], "single_target": [], "multi_target": ["mdprop"]}
    assert (params.train.epochs, params.train.batch_size, params.attack.epsilon) == (5, 32, 0.5)
    assert set(params.adversary.sets) == {"single_target", "multi_target"}
    assert type(content["datasets"]["glyphs"]["mean"]) is list  # no object of a YAML library


def test_a_recipe_may_be_new() -> None:
    recipe = [{"goal": "single_target", "branch": "near"}]
    runs = {"a": {"methods": ["mine"], "seeds": [0], "params": {"recipes.mine": recipe}}}
    plan = study(runs=runs)
    content, params = unit_params(plan, next(units(plan)), project_params(PARAMS))
    assert content["methods"]["single_target"] == ["mine"]
    assert params.method("mine").branches == ("clean", "near")


def test_a_run_answers_through_the_branches_that_its_method_has() -> None:
    wanted = ["clean", "multi_target", "clean+25%multi_target"]
    plan = study(params={"adversary.branches": wanted})
    base = project_params(PARAMS)
    found = {u.method: unit_params(plan, u, base)[1].adversary.branches for u in units(plan)}
    assert found == {"standard": ("clean",), "mdprop": tuple(wanted)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"params": {"train.epoch": 1}}, r"^a/standard/0: unknown key 'train\.epoch'"),
        ({"params": {"train.epochs": "x"}}, r"^a/standard/0: train\.epochs"),
        ({"presets": ["none"]}, r"^unknown preset 'none'; known: "),
        ({"params": {"train.epochs.x": 1}}, r"^a/standard/0: unknown key 'train\.epochs\.x': epochs has no"),
        ({"params": {"adversary": None}}, r"^a/standard/0: adversary = null: keys with values"),
        ({"params": {"adversary.branches": None}}, r"adversary\.branches = null: a list is needed"),
        ({"params": {"adversary.branches": "clean"}}, r"adversary\.branches = 'clean': a list is needed"),
        ({"params": {"adversary.branches": ["x+y"]}}, r"'x\+y' is no batch-norm branch"),
        (
            {"params": {"train.epochs": -1, "train.precision": 1}},
            r"^a/standard/0 has 2 problems:\ntrain\.epochs = -1.*\ntrain\.precision = 1",
        ),
    ],
)
def test_values_that_params_does_not_take(changes: dict[str, Any], message: str) -> None:
    plan = study(**changes)
    with pytest.raises(ParameterError, match=message):
        unit_params(plan, next(units(plan)), project_params(PARAMS))


def test_settings_are_those_that_decide_the_run() -> None:
    plan = study()
    base = project_params(PARAMS)
    standard, mdprop = (settings(unit_params(plan, u, base)[1], u.method) for u in list(units(plan))[:2])
    assert "attack.targets" in mdprop and "attack.targets" not in standard
    assert mdprop["train.epochs"] == 8 and "adversary.queries" in mdprop
    assert not [key for key in mdprop if key.startswith(("datasets.folder", "recipes", "seeds"))]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("about: [", r"study\.yaml is not valid YAML"),
        ("", r"study\.yaml is empty"),
        ("- a", r"study\.yaml: sections with keys are needed, such as `runs:`, not list"),
        ("[" * 5000, r"study\.yaml is not valid YAML: its values are nested too deep"),
        ("about: x", r"study\.yaml: key 'runs' is missing: add it"),
        (
            "runs: []",
            r"has 2 problems:\nkey 'about' is missing: add it\nruns = \[\]: keys with",
        ),
        (runs(sweep={}), r"unknown key 'runs\.a\.sweep'; allowed here: methods, seeds, params, grid$"),
        (runs(seeds=[]), r"runs\.a\.seeds = \[\]: the list is empty"),
        (runs(seeds=[1, 1]), r"runs\.a\.seeds = \[1, 1\]: names one twice"),
        (runs(methods=["at", "at"]), r"runs\.a\.methods = .*: names one twice"),
        (runs(grid={"train.epochs": []}), r"runs\.a\.grid\.train\.epochs = \[\]: the list is empty"),
        (runs(grid={"train.epochs": [1, 1]}), r"two points are called train\.epochs=1"),
        (runs(grid={"model.weights": ["a/b.pth", "a-b.pth"]}), r"two points are called model\.weights=a-b"),
        (runs(grid={"model.backbone": ["a\nb"]}), r"'model\.backbone=a\\nb'\.\.\. is no name of a folder"),
        (runs(grid={"model.weights": ["a" * 250]}), r"is no name of a folder: use shorter values"),
        (runs(grid={k: list(range(10)) for k in "abcde"}), r"runs\.a\.grid: makes more than 10000 runs"),
        (runs(params={"seeds": [5]}), r"runs\.a\.params: seeds is not read"),
        (runs(grid={"methods.clean": [["at"]]}), r"runs\.a\.grid: methods\.clean is not read"),
        (
            "about: x\nruns: {a: {methods: [at], seeds: [0], params: {loss.options: {x: !!binary aGk=}}}}",
            r"loss\.options holds what is no text, number, list or keys",
        ),
        ("about: x\nruns: {a: &a {methods: [at], seeds: [0]}, A: *a}", r"'A' differs from another group by"),
    ],
)
def test_a_malformed_study(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(ParameterError, match=message):
        read_study(path)


def test_a_missing_study(tmp_path: Path) -> None:
    with pytest.raises(
        ParameterError, match=r"none/study\.yaml not found: name a folder of studies/ that has one"
    ):
        read_study(tmp_path / "none" / "study.yaml")


@pytest.mark.parametrize(
    "path", sorted((PROJECT / "studies").glob("*/study.yaml")), ids=lambda p: p.parent.name
)
def test_the_studies_of_the_project_are_valid(path: Path) -> None:
    plan, base = read_study(path), project_params(PARAMS)
    for unit in units(plan):
        unit_params(plan, unit, base)


def test_a_place_is_a_folder() -> None:
    assert Unit("a", (("attack.epsilon", "1/255"),), "at", 0).place == Path("a/attack.epsilon=1-255")
