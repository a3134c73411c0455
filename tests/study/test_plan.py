from __future__ import annotations

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
        ("about: x", r"study\.yaml: 'runs' is missing"),
        (
            "about: x\nruns: {a: {methods: [at], seeds: [0], sweep: {}}}",
            r"'runs\.a\.sweep' is no key of a study",
        ),
        ("about: x\nruns: {a: {methods: [at], seeds: []}}", r"runs\.a\.seeds"),
    ],
)
def test_a_malformed_study(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(ParameterError, match=message):
        read_study(path)


def test_a_missing_study(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"none/study\.yaml cannot be read"):
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
