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
DATASETS = yaml.load((PROJECT / "params.yaml").read_text())["datasets"]
GLYPHS = DATASETS["glyphs"]

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


@pytest.mark.parametrize("name", list(DATASETS))
def test_every_data_set_can_be_chosen(tmp_path: Path, name: str) -> None:
    params = load_changed(tmp_path, {"dataset.name": name})
    assert params.active_dataset.channels == len(params.active_dataset.mean)


NORMALIZED = {"adversary.units": "normalized"}
MISTAKES: list[tuple[dict[str, Any], str]] = [
    # a misspelt key, at each level: it wins over the missing key that it leaves behind
    (
        {"trian": {}, "train": MISSING},
        "unknown key 'trian'; allowed here: seeds, methods, recipes, dataset, datasets, model, loss, train, "
        "attack, adversary, corruptions, evaluate",
    ),
    (
        {"train.epoch": 3, "train.epochs": MISSING},
        "unknown key 'train.epoch'; allowed here: epochs, head_epochs, batch_size, images_per_class, "
        "class_replacement, learning_rate, learning_rates, weight_decay, schedule, precision, validate_every",
    ),
    (
        {"dataset.nmae": "glyphs"},
        "unknown key 'dataset.nmae'; allowed here: name, validation_classes, evaluate, train_fraction, ",
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
    ({"train.epochs": "many"}, "train.epochs = 'many': a whole number from 0 to 100000 is needed"),
    ({"train.epochs": 2.5}, "train.epochs = 2.5: a whole number from 0 to 100000 is needed"),
    ({"train.epochs": True}, "train.epochs = true: a whole number from 0 to 100000 is needed"),
    ({"train.learning_rate": "1e-5"}, "train.learning_rate = '1e-5': a number from 1e-12 to 1000 is needed"),
    ({"datasets.glyphs.flip": "yes"}, "datasets.glyphs.flip = 'yes': true or false is needed"),
    ({"datasets.glyphs.mean": 0.5}, "datasets.glyphs.mean = 0.5: a list is needed, such as [a, b]"),
    ({"methods.clean": "standard"}, "methods.clean = 'standard': a list is needed, such as [a, b]"),
    ({"train": 5}, "train = 5: keys with values are needed"),
    # a value that is not allowed
    ({"train.epochs": -1}, "train.epochs = -1: a whole number from 0 to 100000 is needed"),
    ({"train.learning_rate": 0.0}, "train.learning_rate = 0.0: a number from 1e-12 to 1000 is needed"),
    (
        {"train.learning_rate": float("nan")},
        "train.learning_rate = nan: a number from 1e-12 to 1000 is needed",
    ),
    (
        {"attack.epsilon": float("inf")},
        "attack.epsilon = inf: a number from 0 to 10000, such as 4/255, is needed",
    ),
    ({"train.schedule": "cosine"}, "train.schedule = 'cosine': one_cycle or constant is needed"),
    ({"attack.units": "pixels"}, "attack.units = 'pixels': pixel or normalized is needed"),
    ({"attack.target_kind": "same_class"}, "attack.target_kind = 'same_class': other_class or any is needed"),
    ({"attack.compatibility": "theirs"}, "attack.compatibility = 'theirs': mdprop or authors is needed"),
    ({"attack.clip": "none"}, "attack.clip = 'none': valid or batch is needed"),
    ({"dataset.train_fraction": 0}, "dataset.train_fraction = 0: a number from 0.0001 to 1 is needed"),
    ({"dataset.train_fraction": 1.5}, "dataset.train_fraction = 1.5: a number from 0.0001 to 1 is needed"),
    ({"dataset.fraction_of": "rows"}, "dataset.fraction_of = 'rows': images or classes is needed"),
    (
        {"train.learning_rates.head": -1.0},
        "train.learning_rates.head = -1.0: a number from 0 to 1000 is needed",
    ),
    (
        {"model.freeze_batchnorm": True},
        "model.freeze_batchnorm = true: none, clean, statistics or all is needed",
    ),
    ({"train.head_epochs": 9}, "train.head_epochs = 9: a whole number from 0 to epochs, 8, is needed"),
    (
        {"model.freeze_batchnorm": "statistics", "attack.batchnorm_start": "reset"},
        "model.freeze_batchnorm = 'statistics': keeps the statistics that branches start with, and the "
        "auxiliary ones would start without any; set attack.batchnorm_start to copy",
    ),
    (
        {"model.freeze_batchnorm": "all", "attack.compatibility": "authors"},
        "model.freeze_batchnorm = 'all': keeps the statistics that branches start with",
    ),
    (
        {"model.freeze_batchnorm": "statistics", "model.auxiliary_momentum": 0.5},
        "model.auxiliary_momentum = 0.5: with model.freeze_batchnorm: statistics no statistics move; null",
    ),
    ({"model.auxiliary_momentum": 0}, "model.auxiliary_momentum = 0: a number from 0.0001 to 1 is needed"),
    ({"adversary.step_ratio": 1.5}, "adversary.step_ratio = 1.5: a number from 0.0001 to 1 is needed"),
    # attacks
    (
        {"adversary.sets.strong": 0.1},
        "adversary.sets.strong = 0.1: a set is {goal: ..., epsilon: ...}; up to 0.1 it was a radius",
    ),
    (
        {"corruptions.kinds": ["rain"]},
        "corruptions.kinds = ['rain']: unknown kind 'rain'; known: gaussian_noise",
    ),
    ({"corruptions.severities": [0]}, "corruptions.severities.0 = 0: "),
    (
        {"corruptions.kinds": ["fog"], "adversary.sets.fog_3": {"goal": "untargeted"}},
        "adversary.sets: 'fog_3' is a corruption: give the set another name",
    ),
    ({"adversary.sets.corruptions": {"goal": "untargeted"}}, "'corruptions' is taken: give the set another"),
    ({"adversary.sets.strong": {"epsilon": 0.1}}, "key 'adversary.sets.strong.goal' is missing: add it"),
    (
        {"adversary.epsilon": "8/x"},
        "adversary.epsilon = '8/x': a number from 0 to 10000, such as 4/255, is needed",
    ),
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
        "adversary.sets.strong.epsilon = '8/x': a number from 0 to 10000, such as 4/255, is nee",
    ),
    (
        {"adversary.sets.strong": {"goal": "single_target", "epsilon": 1, "norm": "l2"}, **NORMALIZED},
        "adversary.units = 'normalized': norm l2 is over all channels together: it needs units: pixel",
    ),
    (
        {"adversary.start_noise": 0},
        "adversary.start_noise = 0: goal untargeted has no gradient at the clean image: more than 0 is",
    ),
    (
        {"adversary.sets.a b": {"goal": "untargeted", "epsilon": 0.1}},
        "adversary.sets.a b: letters, digits, _ and - are allowed, at most 64",
    ),
    ({"adversary.sets.clean": {"goal": "untargeted", "epsilon": 1}}, "adversary.sets: 'clean' is taken"),
    (
        {"adversary.sets": {}},
        "adversary.sets = {}: name at least one set, such as single_target: {goal: single_targe",
    ),
    (
        {"adversary.branches": ["multitarget"]},
        "adversary.branches = ['multitarget']: no method has a branch 'multitarget'; there are:",
    ),
    ({"adversary.branches": ["clean+0%multi_target"]}, "'clean+0%multi_target' is no batch-norm branch"),
    ({"adversary.sets.Clean": {"goal": "untargeted"}}, "adversary.sets: 'Clean' is taken"),
    (
        {"adversary.sets.a": {"goal": "untargeted"}, "adversary.sets.A": {"goal": "untargeted"}},
        "adversary.sets: 'a' differs from another set by case only: rename one",
    ),
    (
        {"recipes.AT": [{"goal": "single_target"}], "methods.single_target": ["at", "AT"]},
        "methods: 'AT' differs from another method by case only: rename one",
    ),
    ({"seeds": list(range(1001))}, ": at most 1000 are allowed"),
    ({"adversary.branches": ["clean", "clean"]}, "names a branch twice"),
    ({"adversary.branches": []}, "adversary.branches = []: "),
    # recipes
    (
        {"recipes.mine": [{"goal": "single"}]},
        "recipes.mine.0.goal = 'single': unknown goal; known: single_target, multi_target, untargeted, ",
    ),
    (
        {"recipes.mine": [{"goal": "untargeted", "brnch": "a"}]},
        "unknown key 'recipes.mine.0.brnch'; allowed here: goal, share, branch, name, epsilon, targets, ",
    ),
    (
        {"recipes.mine": [{"goal": "untargeted", "share": "3/2"}]},
        "recipes.mine.0.share = '3/2': a share from 0.001 to 1, such as 1/2 or 0.5, is needed",
    ),
    ({"recipes.mdprop": []}, "recipes.mdprop = []: a known method keeps its slices; give yours another name"),
    (
        {"recipes.at": [{"goal": "single_target"}]},
        "recipes.at = [{'goal': 'single_target'}]: a known method keeps its slices; give yours another name",
    ),
    (
        {"recipes.mine": [{"goal": "ltm"}]},
        "recipes.mine.0.goal = 'ltm': compares with a whole gallery, which a batch has not; use it in ",
    ),
    (
        {"recipes.mine": [{"goal": "untargeted", "through": "far"}], "methods.single_target": ["mine"]},
        "method 'mine': slice 'untargeted' is made through 'far', none of its branches; choose from clean, ",
    ),
    (
        {"recipes.mine": [{"goal": "untargeted", "pull": 1001}]},
        "recipes.mine.0.pull = 1001: a number from 0 to 1000 is needed",
    ),
    ({"recipes.a b": []}, "recipes.a b: letters, digits, _ and - are allowed, at most 64"),
    (
        {"recipes.mine": [{"goal": "untargeted"}], "methods.clean": ["mine"]},
        "methods.clean = ['mine']: 'mine' belongs under methods.single_target",
    ),
    (
        {"recipes.mine": [{"goal": "untargeted", "share": "1/2"}] * 2, "methods.single_target": ["mine"]},
        "method 'mine' has two slices named 'untargeted': give each its own name or branch",
    ),
    (
        {"recipes.m": [{"goal": "untargeted"}], "methods.single_target": ["m"], "attack.start_noise": 0},
        "attack.start_noise = 0: slice 'untargeted' of m: goal untargeted has no gradient at the clean",
    ),
    ({"evaluate.ks": [2, 4]}, "evaluate.ks = [2, 4]: must hold 1: the table is about Recall@1"),
    (
        {"datasets.glyphs.reader": "glyph"},
        "datasets.glyphs.reader = 'glyph': no such reader; known are glyphs",
    ),
    # values that do not go together
    (
        {"train.batch_size": 63},
        "train.batch_size = 63: a multiple of images_per_class, 2, from 4 is needed",
    ),
    ({"train.batch_size": 2}, "train.batch_size = 2: a whole number from 4 to 65536 is needed"),
    (
        {"datasets.glyphs.mean": [0.5, 0.5]},
        "datasets.glyphs.mean = [0.5, 0.5]: 1 value(s) are needed for mode L",
    ),
    ({"datasets.folder.std": [0.2]}, "datasets.folder.std = [0.2]: 3 value(s) are needed for mode RGB"),
    (
        {"datasets.glyphs.image_size": 33},
        "datasets.glyphs.image_size = 33: at most resize, 32, is needed: lower it, or raise res",
    ),
    (
        {"datasets.glyphs.crop_scale": [1.0, 0.5]},
        "datasets.glyphs.crop_scale = [1.0, 0.5]: [smallest, largest] is needed, two shares of ",
    ),
    (
        {"dataset.name": "cub"},
        "dataset.name = 'cub': is no block of datasets: cars196, cub200, cub200_2010, folder, "
        "glyphs, grocery, inshop",
    ),
    (
        {"datasets.glyphs.image_size": 15},
        "datasets.glyphs.image_size = 15: conv4 halves it four times: 16 or more is needed, or ",
    ),
    (
        {"train.batch_size": 4},
        "train.batch_size = 4: too small for mdprop: a slice of 2 images may hold one class only "
        "(images_per_class is 2); raise batch_size",
    ),
    # methods
    (
        {"methods.clean": ["standrad"]},
        "methods.clean = ['standrad']: unknown method 'standrad'; known: standard, at, advprop,",
    ),
    (
        {"methods.clean": ["mdprop"]},
        "methods.clean = ['mdprop']: 'mdprop' belongs under methods.multi_target",
    ),
    (
        {"methods.single_target": ["at", "at"]},
        "methods.single_target = ['at', 'at']: names a method twice: name it once",
    ),
    ({"methods.clean": [], "methods.single_target": [], "methods.multi_target": []}, "name at least one"),
    # more than anyone needs, or less than can be measured
    ({"model.embedding_dim": 2}, "model.embedding_dim = 2: a whole number from 3 to 65536 is needed"),
    ({"model.embedding_dim": 10**9}, "model.embedding_dim = 1000000000: a whole number from 3 to 65536"),
    ({"adversary.queries": 2}, "adversary.queries = 2: 0, or a whole number from 10 to 10000000 is needed"),
    ({"adversary.queries": -1}, "adversary.queries = -1: 0, or a whole number from 10"),
    ({"adversary.draw": "all"}, "adversary.draw = 'all': images or classes is needed"),
    ({"adversary.steps": 10**9}, "adversary.steps = 1000000000: a whole number from 1 to 10000 is needed"),
    ({"attack.steps": 10**9}, "attack.steps = 1000000000: a whole number from 1 to 10000 is needed"),
    ({"attack.targets": 10**5}, "attack.targets = 100000: a whole number from 1 to 1000 is needed"),
    (
        {"attack.targets": 31},
        "attack.targets = 31: mdprop draws the targets of an image from its slice 'multi_target', where 32 "
        "images offer 30: from 1 to 30 is needed, or a larger train.batch_size",
    ),
    ({"attack.start_noise": 1e300}, "attack.start_noise = 1e+300: a number from 0 to 10000"),
    ({"attack.epsilon": 5}, "attack.epsilon = 5: a number from 0 to 1 is needed, in pixels of [0, 1]"),
    ({"adversary.epsilon": 5}, "adversary.epsilon = 5: a number from 0 to 1 is needed, in pixels of [0, 1]"),
    (
        {"adversary.sets.strong": {"goal": "single_target", "epsilon": 5}},
        "adversary.sets.strong.epsilon = 5: a number from 0 to 1 is needed",
    ),
    (
        {"attack.epsilon": 21, "attack.units": "normalized"},
        "attack.epsilon = 21: a number from 0 to 20 is needed, in standard deviations of a channel",
    ),
    ({"train.epochs": 10**9}, "train.epochs = 1000000000: a whole number from 0 to 100000 is needed"),
    ({"train.batch_size": 10**12}, "train.batch_size = 1000000000000: a whole number from 4 to 65536"),
    ({"train.images_per_class": 10**9}, "train.images_per_class = 1000000000: a whole number from 2 to 4096"),
    ({"train.learning_rate": 1e38}, "train.learning_rate = 1e+38: a number from 1e-12 to 1000 is needed"),
    ({"train.weight_decay": 1e300}, "train.weight_decay = 1e+300: a number from 0 to 1000 is needed"),
    ({"datasets.glyphs.resize": 20000}, "datasets.glyphs.resize = 20000: a whole number from 1 to 512"),
    ({"datasets.folder.resize": 20000}, "datasets.folder.resize = 20000: a whole number from 1 to 4096"),
    ({"datasets.glyphs.images_per_class": 10**9}, "datasets.glyphs.images_per_class = 1000000000: a whole"),
    (
        {"datasets.glyphs.crop_scale": [1e-300, 1]},
        "datasets.glyphs.crop_scale.0 = 1e-300: a number from 0.001",
    ),
    ({"datasets.glyphs.mean": [1e30]}, "datasets.glyphs.mean.0 = 1e+30: a number from 0 to 1 is needed"),
    ({"datasets.glyphs.std": [1e-30]}, "datasets.glyphs.std.0 = 1e-30: a number from 0.001 to 10 is needed"),
    ({"evaluate.ks": [1, 10**9]}, "evaluate.ks.1 = 1000000000: a whole number from 1 to 10000 is needed"),
    ({"evaluate.exact_limit": 10**12}, "evaluate.exact_limit = 1000000000000: a whole number from 1 to"),
    # names and paths
    ({"dataset.name": "../raw"}, "dataset.name = '../raw': letters, digits, _ and - are allowed, at most 64"),
    ({"dataset.name": ""}, "dataset.name = '': letters, digits, _ and - are allowed, at most 64"),
    ({"dataset.name": "/tmp/x"}, "dataset.name = '/tmp/x': letters, digits, _ and - are allowed, at most 64"),
    ({"datasets.a b": GLYPHS}, "datasets.a b: letters, digits, _ and - are allowed, at most 64"),
    ({"methods.clean": ["a/b"]}, "methods.clean.0 = 'a/b': letters, digits, _ and - are allowed, at most 64"),
    (
        {f"adversary.sets.{'a' * 300}": {"goal": "untargeted"}},
        f"adversary.sets.{'a' * 85}...: letters, digits, _ and - are allowed, at most 64",
    ),
    (
        {"datasets.folder.root": "a/" * 2500},
        "...: a path of at most 4000 characters, 255 between two slashes",
    ),
    ({"datasets.folder.root": "a" * 256}, "...: a path of at most 4000 characters, 255 between two slashes"),
    # seeds
    ({"seeds": []}, "seeds = []: "),
    ({"seeds": 0}, "seeds = 0: a list is needed, such as [a, b]"),
    ({"seeds": [0, -1]}, "seeds.1 = -1: a whole number from 0 to 4294967295 is needed"),
    ({"seeds": [2**32]}, "seeds.0 = 4294967296: a whole number from 0 to 4294967295 is needed"),
    ({"seeds": [0, 1, 0]}, "seeds = [0, 1, 0]: names a seed twice"),
    ({"adversary.seed": "a"}, "adversary.seed = 'a': a whole number from 0 to 4294967295 is needed"),
]


@pytest.mark.parametrize(("changes", "message"), MISTAKES, ids=[", ".join(m[0]) for m in MISTAKES])
def test_a_mistake_is_one_line_that_names_file_and_key(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    path = write_params(tmp_path, changes)
    with pytest.raises(ParameterError, match=rf"^{re.escape(str(path))}: .*{re.escape(message)}") as caught:
        load_params(path)
    assert "\n" not in str(caught.value)


def test_all_problems_at_once(tmp_path: Path) -> None:
    changes = {"train.epoch": 3, "train.epochs": MISSING, "loss.name": MISSING, "attack.steps": 0, "seeds": 1}
    path = write_params(tmp_path, {**changes, "dataset.name": "a b", "adversary.epsilon": "x"})
    with pytest.raises(ParameterError) as caught:
        load_params(path)
    first, *lines = str(caught.value).split("\n")
    assert first == f"{path} has 6 problems:"
    assert [line.split(" =")[0].split(";")[0] for line in lines] == [
        "unknown key 'train.epoch'",
        "seeds",
        "dataset.name",
        "key 'loss.name' is missing: add it",
        "attack.steps",
        "adversary.epsilon",
    ]


def test_all_that_does_not_go_together_at_once(tmp_path: Path) -> None:
    changes = {"dataset.name": "cub", "methods.clean": ["x", "mdprop"], "adversary.branches": ["clean"]}
    with pytest.raises(
        ParameterError, match=r" has 3 problems:\ndataset\.name.*\nmethods.*'x'.*\nmethods.*'mdp"
    ):
        load_params(write_params(tmp_path, changes))


def test_a_long_list_of_problems_is_cut(tmp_path: Path) -> None:
    path = write_params(tmp_path, {f"train.{'x' * 90}{i}": 1 for i in range(50)})
    with pytest.raises(ParameterError, match=r" has 50 problems:\n(.*\n)+\.\.\. and \d+ more$") as caught:
        load_params(path)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: [", "is not valid YAML: line 1: expected the node content"),
        ("a: 1\na: 2\n", 'found duplicate key "a"'),
        ("a: 1\n\tb: 2\n", r"is not valid YAML: .*line 2"),
        ("a: \xff", "is not valid YAML"),
        ("", " is empty: `git restore params.yaml`"),
        ("# nothing\n", " is empty: `git restore params.yaml`"),
        ("a: \0", "is not valid YAML: unacceptable character"),
        ("loss: " + "[" * 5000 + "]" * 5000, "is not valid YAML: its values are nested too deep"),
        ("a: &a [*a]\nb: 1\n---\nc: 2", "is not valid YAML: line 3: but found another document"),
        ("a: 2020-13-45", "is not valid YAML: month must be in"),
        ("train:\n\tepochs: 2", "cannot start any token; indent with spaces"),
        ("# " + "x" * 2**20, "has more than 131072 bytes"),
        ("- a list", ": sections with keys are needed, such as `train:`, not list"),
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
    with pytest.raises(ParameterError, match=rf"^{tmp_path} is no file: give the path of a params.yaml$"):
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


@pytest.mark.parametrize("radius", ["4/255", 4 / 255, "0.0156862745098039216"])
def test_every_radius_may_be_a_fraction(tmp_path: Path, radius: Any) -> None:
    changes = {"attack.epsilon": radius, "attack.start_noise": radius, "adversary.epsilon": radius}
    sets = {"adversary.sets.mine": {"goal": "untargeted", "epsilon": radius, "start_noise": radius}}
    recipe = [{"goal": "single_target", "epsilon": radius}]
    params = load_changed(tmp_path, {**changes, **sets, "recipes.mine": recipe})
    mine = params.adversary.sets["mine"]
    found = [params.attack.epsilon, params.attack.start_noise, params.adversary.epsilon]
    found += [mine.epsilon, mine.start_noise, params.method("mine").adversarial[0].epsilon]
    assert found == pytest.approx([4 / 255] * 6)


def test_statistics_may_be_kept_where_no_auxiliary_branch_starts_without_any(tmp_path: Path) -> None:
    alone = {"methods.single_target": ["at"], "methods.multi_target": []}
    changes = {"model.freeze_batchnorm": "statistics", "attack.batchnorm_start": "reset", **alone}
    load_changed(tmp_path, changes)
    load_changed(tmp_path, {"model.freeze_batchnorm": "clean", "attack.batchnorm_start": "reset"})
    load_changed(tmp_path, {"train.epochs": 0})


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


def test_a_recipe_that_has_become_a_known_method_may_stay(tmp_path: Path) -> None:
    slices = [{"goal": "single_target", "branch": "clean"}]
    params = load_changed(tmp_path, {"recipes.at": slices})
    assert params.method("at") == METHODS["at"]


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
