from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from ruamel.yaml import YAML

from mdprop.attacks import Threat
from mdprop.config import Params, load_params
from mdprop.errors import ParameterError
from mdprop.methods import METHODS

PROJECT = Path(__file__).parents[1]
yaml = YAML(typ="safe")
DATASETS = list(yaml.load((PROJECT / "params.yaml").read_text())["datasets"])

MISSING = object()


def write_params(folder: Path, changes: dict[str, Any]) -> Path:
    """The project's params.yaml with some values changed, added or, where MISSING, taken out."""
    params = yaml.load((PROJECT / "params.yaml").read_text())
    for path, value in changes.items():
        *sections, key = path.split(".")
        section = params
        for name in sections:
            section = section[name]
        if value is MISSING:
            del section[key]
        else:
            section[key] = value
    with (folder / "params.yaml").open("w") as file:
        yaml.dump(params, file)
    return folder / "params.yaml"


def load_changed(folder: Path, changes: dict[str, Any]) -> Params:
    return load_params(write_params(folder, changes))


def test_the_projects_parameters_load() -> None:
    params = load_params(PROJECT / "params.yaml")
    plain = yaml.load((PROJECT / "params.yaml").read_text())
    assert params.dataset.name == plain["dataset"]["name"]
    assert params.active_dataset is params.datasets[params.dataset.name]
    assert params.train.learning_rate == plain["train"]["learning_rate"]
    middle = params.adversary.sets["single_target_middle"]
    assert (middle.goal, middle.epsilon, middle.steps) == ("single_target", 0.05, plain["adversary"]["steps"])
    assert list(params.methods.all) == [m for names in plain["methods"].values() for m in names]
    shared = {key: plain["adversary"][key] for key in Threat.model_fields if key in plain["adversary"]}
    plain["adversary"]["sets"] = {n: {**shared, **own} for n, own in plain["adversary"]["sets"].items()}
    dumped = params.model_dump(mode="json", exclude_unset=True)
    assert dumped.pop("recipes").keys() == plain.pop("recipes").keys()
    assert dumped == plain


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_can_be_chosen(tmp_path: Path, name: str) -> None:
    params = load_changed(tmp_path, {"dataset.name": name})
    assert params.active_dataset.channels == len(params.active_dataset.mean)


NORMALIZED = {"adversary.units": "normalized"}
MISTAKES: list[tuple[dict[str, Any], str]] = [
    # a misspelt key, at each level: it wins over the missing key that it leaves behind
    (
        {"trian": {}, "train": MISSING},
        "unknown key 'trian'; allowed here: seeds, methods, recipes, dataset, datasets, model, loss, train, "
        "attack, adversary, evaluate",
    ),
    (
        {"train.epoch": 3, "train.epochs": MISSING},
        "unknown key 'train.epoch'; allowed here: epochs, batch_size, images_per_class, class_replacement, "
        "learning_rate, learning_rates, weight_decay, schedule, precision, validate_every",
    ),
    (
        {"dataset.nmae": "glyphs"},
        "unknown key 'dataset.nmae'; allowed here: name, validation_classes, train_fraction, fraction_of",
    ),
    (
        {"train.learning_rates.haed": 0.1},
        "unknown key 'train.learning_rates.haed'; allowed here: head, clean_batchnorm, "
        "auxiliary_batchnorm, loss",
    ),
    (
        {"methods.multi": []},
        "unknown key 'methods.multi'; allowed here: clean, single_target, multi_target",
    ),
    (
        {"datasets.glyphs.sede": 0, "datasets.glyphs.seed": MISSING},
        "unknown key 'datasets.glyphs.sede'; allowed here: mode, resize, encoding, image_size, crop_scale, "
        "flip, mean, std, reader, seed, images_per_class, difficulty",
    ),
    # a missing key, at each level
    ({"seeds": MISSING}, "key 'seeds' is missing: add it"),
    ({"loss.name": MISSING}, "key 'loss.name' is missing: add it"),
    ({"datasets.folder.root": MISSING}, "key 'datasets.folder.root' is missing: add it"),
    ({"datasets.folder.reader": MISSING}, "key 'datasets.folder.reader' is missing: add it"),
    # a wrong type
    ({"train.epochs": "many"}, "train.epochs = 'many': input should be a valid integer"),
    ({"train.epochs": 2.5}, "train.epochs = 2.5: input should be a valid integer"),
    ({"train.epochs": True}, "train.epochs = True: input should be a valid integer"),
    ({"train.learning_rate": "1e-5"}, "train.learning_rate = '1e-5': input should be a valid number"),
    ({"datasets.glyphs.flip": "yes"}, "datasets.glyphs.flip = 'yes': input should be a valid boolean"),
    ({"datasets.glyphs.mean": 0.5}, "datasets.glyphs.mean = 0.5: input should be a list"),
    ({"methods.clean": "standard"}, "methods.clean = 'standard': input should be a list"),
    ({"train": 5}, "train = 5: input should be a valid dictionary"),
    # a value that is not allowed
    ({"train.epochs": 0}, "train.epochs = 0: input should be greater than or equal to 1"),
    ({"train.learning_rate": 0.0}, "train.learning_rate = 0.0: input should be greater than 0"),
    ({"train.learning_rate": float("nan")}, "train.learning_rate = nan: input should be a finite number"),
    ({"attack.epsilon": float("inf")}, "attack.epsilon = inf: input should be a finite number"),
    ({"train.schedule": "cosine"}, "train.schedule = 'cosine': input should be 'one_cycle' or 'constant'"),
    ({"attack.units": "pixels"}, "attack.units = 'pixels': input should be 'pixel' or 'normalized'"),
    ({"attack.target_kind": "same_class"}, "input should be 'other_class' or 'any'"),
    ({"attack.compatibility": "theirs"}, "input should be 'mdprop' or 'authors'"),
    ({"attack.clip": "none"}, "attack.clip = 'none': input should be 'valid' or 'batch'"),
    ({"dataset.train_fraction": 0}, "dataset.train_fraction = 0: input should be greater than 0"),
    ({"dataset.train_fraction": 1.5}, "input should be less than or equal to 1"),
    ({"dataset.fraction_of": "rows"}, "input should be 'images' or 'classes'"),
    (
        {"train.learning_rates.head": -1.0},
        "train.learning_rates.head = -1.0: input should be greater than or",
    ),
    ({"model.freeze_batchnorm": True}, "model.freeze_batchnorm = True: input should be 'none', 'clean' or"),
    ({"adversary.step_ratio": 1.5}, "adversary.step_ratio = 1.5: input should be less than or equal to 1"),
    # attacks
    (
        {"adversary.sets.strong": 0.1},
        "adversary: sets.strong = 0.1: a set is {goal: ..., epsilon: ...}; up to 0.1 it was a radius",
    ),
    ({"adversary.sets.strong": {"epsilon": 0.1}}, "key 'adversary.sets.strong.goal' is missing: add it"),
    ({"adversary.epsilon": "8/x"}, "adversary.epsilon = '8/x': a number or a fraction such as 4/255 is"),
    (
        {"adversary.sets.strong": {"goal": "away", "epsilon": 0.1}},
        "adversary.sets.strong.goal = 'away': unknown goal; known: single_target, multi_target, ",
    ),
    (
        {"adversary.sets.strong": {"goal": "untargeted", "epsilon": 0.1, "stesp": 3}},
        "unknown key 'adversary.sets.strong.stesp'; allowed here: goal, epsilon, norm, units, steps, ",
    ),
    (
        {"adversary.sets.strong": {"goal": "untargeted", "epsilon": "8/x"}},
        "adversary.sets.strong.epsilon = '8/x': a number or a fraction such as 4/255 is needed",
    ),
    (
        {"adversary.sets.strong": {"goal": "single_target", "epsilon": 1, "norm": "l2"}, **NORMALIZED},
        "adversary.sets.strong: norm l2 is over all channels together: it needs units: pixel",
    ),
    (
        {"adversary.start_noise": 0},
        "adversary.sets.untargeted_middle: goal untargeted has no gradient at the clean image",
    ),
    (
        {"adversary.sets.a b": {"goal": "untargeted", "epsilon": 0.1}},
        "adversary.sets.a b = 'a b': letters, digits, _ and - are allowed, at most 64",
    ),
    ({"adversary.sets.clean": {"goal": "untargeted", "epsilon": 1}}, "adversary.sets: 'clean' is taken"),
    ({"adversary.sets": {}}, "adversary.sets: name at least one set, such as single_target: {goal: single"),
    (
        {"adversary.branches": ["multitarget"]},
        "adversary.branches: no method has a branch 'multitarget'; there are: clean, multi_target, single",
    ),
    ({"adversary.branches": ["clean+0%multi_target"]}, "'clean+0%multi_target' is no batch-norm branch"),
    ({"adversary.branches": ["clean", "clean"]}, "names a branch twice"),
    ({"adversary.branches": []}, "adversary.branches = []: "),
    # recipes
    (
        {"recipes.mine": [{"goal": "single"}]},
        "recipes.mine.0.goal = 'single': unknown goal; known: single_target, multi_target, untargeted, ",
    ),
    (
        {"recipes.mine": [{"goal": "untargeted", "brnch": "a"}]},
        "unknown key 'recipes.mine.0.brnch'; allowed here: goal, share, branch, name, epsilon, targets",
    ),
    (
        {"recipes.mine": [{"goal": "untargeted", "share": "3/2"}]},
        "recipes.mine.0.share = '3/2': input should be less than or equal to 1",
    ),
    ({"recipes.mdprop": []}, "recipes.mdprop: a known method keeps its slices; give yours another name"),
    ({"recipes.a b": []}, "recipes.a b = 'a b': letters, digits, _ and - are allowed, at most 64"),
    (
        {"recipes.mine": [{"goal": "untargeted"}], "methods.clean": ["mine"]},
        "'mine' belongs under methods.single_target, not methods.clean",
    ),
    (
        {"recipes.mine": [{"goal": "untargeted", "share": "1/2"}] * 2, "methods.single_target": ["mine"]},
        "method 'mine' has two slices named 'untargeted': give each its own name or branch",
    ),
    (
        {"recipes.m": [{"goal": "untargeted"}], "methods.single_target": ["m"], "attack.start_noise": 0},
        "method 'm', slice 'untargeted': goal untargeted has no gradient at the clean image",
    ),
    ({"evaluate.ks": [2, 4]}, "evaluate.ks = [2, 4]: must hold 1: the table is about Recall@1"),
    (
        {"datasets.glyphs.reader": "glyph"},
        "datasets.glyphs.reader = 'glyph': no such reader; known are glyphs",
    ),
    # values that do not go together
    (
        {"train.batch_size": 63},
        "train: batch_size 63 must be a multiple of images_per_class 2 that holds two classes or more",
    ),
    ({"train.batch_size": 2}, "train: batch_size 2 must be a multiple of images_per_class 2"),
    ({"datasets.glyphs.mean": [0.5, 0.5]}, "datasets.glyphs: mean needs 1 value(s) for mode L"),
    ({"datasets.folder.std": [0.2]}, "datasets.folder: std needs 3 value(s) for mode RGB"),
    ({"datasets.glyphs.image_size": 33}, "datasets.glyphs: image_size 33 must not exceed resize 32"),
    ({"datasets.glyphs.crop_scale": [1.0, 0.5]}, "crop_scale must be [smallest, largest]"),
    (
        {"dataset.name": "cub"},
        "dataset.name 'cub' is no block of datasets: cars196, cub200, folder, glyphs, inshop, omniglot, sop",
    ),
    (
        {"datasets.glyphs.image_size": 15},
        "datasets.glyphs.image_size 15 is too small for conv4, which halves it four times: 16 or more",
    ),
    (
        {"train.batch_size": 4},
        "train.batch_size 4 is too small for mdprop: a slice of 2 images may hold one class only "
        "(images_per_class is 2); raise batch_size",
    ),
    # methods
    (
        {"methods.clean": ["standrad"]},
        "methods.clean: unknown method 'standrad'; known: standard, at, advprop, mdprop, mdprop_unadv",
    ),
    (
        {"methods.clean": ["mdprop"]},
        "'mdprop' belongs under methods.multi_target, not methods.clean",
    ),
    ({"methods.single_target": ["at", "at"]}, "methods.single_target names a method twice"),
    ({"methods.clean": [], "methods.single_target": [], "methods.multi_target": []}, "name at least one"),
    # seeds
    ({"seeds": []}, "seeds = []: "),
    ({"seeds": 0}, "seeds = 0: input should be a list"),
    ({"seeds": [0, -1]}, "seeds.1 = -1: input should be greater than or equal to 0"),
    ({"seeds": [2**32]}, "seeds.0 = 4294967296: input should be less than 4294967296"),
    ({"seeds": [0, 1, 0]}, "seeds = [0, 1, 0]: names a seed twice"),
    ({"adversary.seed": "a"}, "adversary.seed = 'a': input should be a valid integer"),
]


@pytest.mark.parametrize(("changes", "message"), MISTAKES, ids=[", ".join(m[0]) for m in MISTAKES])
def test_a_mistake_is_one_line_that_names_file_and_key(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = write_params(tmp_path, changes)
    with pytest.raises(ParameterError, match=rf"^{re.escape(str(path))}: .*{re.escape(message)}") as caught:
        load_params(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: [", "is not valid YAML: while parsing"),
        ("a: 1\na: 2\n", 'found duplicate key "a"'),
        ("a: 1\n\tb: 2\n", r"is not valid YAML: .*line 2"),
        ("a: \xff", "is not valid YAML"),
        ("", ": input should be a valid dictionary"),
        ("- a list", ": input should be a valid dictionary"),
    ],
)
def test_a_file_that_is_no_mapping_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ParameterError, match=rf"^{re.escape(str(path))}.*{message}") as caught:
        load_params(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"none\.yaml not found: run from the project's root$"):
        load_params(tmp_path / "none.yaml")
    with pytest.raises(ParameterError, match=rf"^{tmp_path} cannot be read \(Is a directory\)$"):
        load_params(tmp_path)


@pytest.mark.parametrize("number", ["1e-05", "1e-5", "1.0e-5", "0.00001"])
def test_a_number_as_dvc_writes_it_is_a_number(tmp_path: Path, number: str) -> None:
    text = (PROJECT / "params.yaml").read_text()
    text, count = re.subn(r"learning_rate: \d\S+", f"learning_rate: {number}", text)
    (tmp_path / "params.yaml").write_text(text)
    assert count == 1
    assert load_params(tmp_path / "params.yaml").train.learning_rate == 1e-5


def test_a_whole_number_is_fine_where_a_fraction_is_meant(tmp_path: Path) -> None:
    assert load_changed(tmp_path, {"train.weight_decay": 0}).train.weight_decay == 0


def test_ks_are_sorted_and_each_is_there_once(tmp_path: Path) -> None:
    assert load_changed(tmp_path, {"evaluate.ks": [4, 1, 2, 4]}).evaluate.ks == (1, 2, 4)


def test_what_does_not_concern_the_choice_is_not_held_against_it(tmp_path: Path) -> None:
    changes = {"datasets.glyphs.image_size": 15, "model.backbone": "resnet18"}
    assert load_changed(tmp_path, changes).active_dataset.image_size == 15
    changes = {"train.batch_size": 4, "methods.multi_target": []}
    assert load_changed(tmp_path, changes).train.batch_size == 4


def test_the_attacks_rules_follow_compatibility_where_they_say_nothing(tmp_path: Path) -> None:
    ours = {"units": "pixel", "clip": "valid", "target_kind": "other_class", "batchnorm_start": "copy"}
    theirs = {"units": "normalized", "clip": "batch", "target_kind": "any", "batchnorm_start": "reset"}
    for compatibility, rules in (("mdprop", ours), ("authors", theirs)):
        attack = load_changed(tmp_path, {"attack.compatibility": compatibility}).attack
        assert {rule: attack.rule(rule) for rule in rules} == rules
    for rule, value in ours.items():
        changes = {"attack.compatibility": "authors", f"attack.{rule}": value}
        attack = load_changed(tmp_path, changes).attack
        assert {name: attack.rule(name) for name in theirs} == {**theirs, rule: value}


@pytest.mark.parametrize("section", ["params", "train", "dataset", "adversary"])
def test_parameters_cannot_be_changed(section: str) -> None:
    params = load_params(PROJECT / "params.yaml")
    target: Any = params if section == "params" else getattr(params, section)
    key = next(iter(type(target).model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(target, key, getattr(target, key))


def test_a_method_of_ones_own(tmp_path: Path) -> None:
    slices = [
        {"goal": "single_target", "share": "1/2", "branch": "near", "epsilon": "4/255"},
        {"goal": "single_target", "share": "1/2", "branch": "far"},
    ]
    params = load_changed(tmp_path, {"recipes.mine": slices, "methods.single_target": ["at", "mine"]})
    method = params.method("mine")
    assert method.branches == ("clean", "near", "far")
    radii = [params.attack.threat(part).epsilon for part in method.adversarial]
    assert radii == pytest.approx([4 / 255, params.attack.epsilon])
    assert params.method("mdprop") is METHODS["mdprop"]
    with pytest.raises(ParameterError, match=r"^unknown method 'x'; known: .*mdprop_unadv, .*mine"):
        params.method("x")


def test_what_training_reads_is_what_its_family_declares(tmp_path: Path) -> None:
    params = load_changed(tmp_path, {"recipes.mine": [], "methods.clean": ["standard", "mine"]})
    found = {
        name: params.read_by_training(params.method(name)) for name in ("standard", "at", "mdprop", "mine")
    }
    assert "attack" not in found["standard"]
    assert "targets" not in found["at"]["attack"]
    assert found["mdprop"]["attack"]["targets"] == 5
    assert found["mine"]["recipes"] == {"mine": []}
    assert all("adversary" not in values and "seeds" not in values for values in found.values())
    assert list(found["mdprop"]["datasets"]) == ["glyphs"]


def test_sets_take_what_they_leave_out(tmp_path: Path) -> None:
    own = {"goal": "untargeted", "epsilon": "8/255", "steps": 40, "norm": "l2"}
    sets = load_changed(tmp_path, {"adversary.sets.strong": own, "adversary.restarts": 3}).adversary.sets
    assert sets["strong"] == Threat(
        goal="untargeted", epsilon=8 / 255, steps=40, norm="l2", restarts=3, step_ratio=0.4, targets=5
    )
    assert (sets["single_target_small"].steps, sets["single_target_small"].restarts) == (6, 3)
