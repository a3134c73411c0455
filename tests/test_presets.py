from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mdprop.attacks import GOALS
from mdprop.config import load_params
from mdprop.errors import ParameterError
from mdprop.losses import build_loss
from mdprop.presets import apply_presets, read_presets
from tests.helpers import PROJECT

PRESETS = read_presets()
SUITES = ["weak", "default", "strong", "matrix", "robrank"]
PAPER = [name for name in PRESETS if name not in ("reduced", "photographs", *SUITES)]


@pytest.fixture
def params(tmp_path: Path) -> Path:
    return Path(shutil.copy(PROJECT / "params.yaml", tmp_path))


def write(folder: Path, text: str) -> Path:
    path = folder / "presets.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("scale", [[], ["reduced"]])
@pytest.mark.parametrize("name", PAPER)
def test_every_preset_gives_valid_parameters(params: Path, name: str, scale: list[str]) -> None:
    changed = apply_presets(params, PRESETS, [name, *scale])
    p = load_params(params)
    assert p.dataset.name == name.split("_")[0]
    build_loss(**p.loss.model_dump(), embedding_dim=8, num_classes=4, feature_dim=16)
    assert "dataset.name" in changed
    assert (p.model.weights is None) == bool(scale)


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_settings(params: Path, name: str) -> None:
    """Section 4.1 and the authors' train.sh, value by value."""
    apply_presets(params, PRESETS, [name])
    p = load_params(params)
    assert (p.model.backbone, p.model.embedding_dim) == ("resnet50", 128)
    assert (p.train.epochs, p.train.images_per_class, p.train.schedule) == (125, 2, "constant")
    assert (p.train.learning_rate, p.train.weight_decay) == (1e-5, 4e-4)
    assert p.train.batch_size == (112 if name.startswith("sop") else 64)
    assert p.train.class_replacement
    assert (p.attack.epsilon, p.attack.steps, p.attack.start_noise, p.attack.targets) == (0.01, 1, 5e-4, 5)
    rules = [p.attack.rule(key) for key in ("units", "clip", "target_kind", "batchnorm_start")]
    assert rules == ["normalized", "batch", "any", "reset"]
    ks = {"sop": (1, 10, 100, 1000), "inshop": (1, 10, 20, 30)}
    assert p.evaluate.ks == ks.get(p.dataset.name, (1, 2, 4, 8))
    data = p.active_dataset
    assert (data.resize, data.image_size, data.crop_scale, data.flip) == (256, 224, (0.08, 1.0), True)
    assert p.train.learning_rates.loss == (5e-4 if p.loss.name == "arcface" else None)
    expected = {
        "multi_similarity": {"pos_weight": 2.0, "neg_weight": 40.0, "margin": 0.1, "threshold": 0.5},
        "arcface": {"margin": 0.5, "scale": 16.0},
        "s2sd": {
            "source": "multi_similarity",
            "target": "multi_similarity",
            "target_dims": [512, 1024, 1536, 2048],
            "temperature": 1.0,
            "weight": 50.0,
            "feature_weight": 50.0,
            "feature_delay": 1000,
        },
    }
    assert p.loss.options == expected[p.loss.name]


@pytest.mark.parametrize("under", [[], ["cub200_multisimilarity"]])
@pytest.mark.parametrize("name", SUITES)
def test_a_suite_changes_the_attacks_and_nothing_else(params: Path, name: str, under: list[str]) -> None:
    apply_presets(params, PRESETS, under)
    before = load_params(params)
    apply_presets(params, PRESETS, [name])
    after = load_params(params)
    assert after.model_copy(update={"adversary": before.adversary}) == before
    kept = ("queries", "draw", "seed", "branches", "epsilon")
    assert [getattr(after.adversary, key) for key in kept] == [getattr(before.adversary, key) for key in kept]


def test_the_suite_by_the_name_of_default_is_the_default(params: Path) -> None:
    before = load_params(params)
    for name in SUITES:
        apply_presets(params, PRESETS, [name])
        apply_presets(params, PRESETS, ["default"])
        assert load_params(params) == before


def test_the_suites_hold_what_their_names_say(params: Path) -> None:
    apply_presets(params, PRESETS, ["strong"])
    sets = load_params(params).adversary.sets.values()
    assert {threat.optimizer for threat in sets} == {"apgd", "square", "noise"}
    same = {"es": "untargeted", "gtm": "nearest_other"}
    harmful = {same.get(name, name) for name, goal in GOALS.items() if goal.harms}
    assert {threat.goal for threat in sets} == harmful
    assert {threat.source for threat in sets} == {None, "standard/0", "at/0"}
    assert {threat.branch for threat in sets} == {None, "all"}
    apply_presets(params, PRESETS, ["matrix"])
    sets = load_params(params).adversary.sets.values()
    assert [threat.branch for threat in sets] == ["clean", "single_target", "multi_target", "all"]
    apply_presets(params, PRESETS, ["robrank"])
    sets = load_params(params).adversary.sets.values()
    assert [threat.goal for threat in sets] == [
        "ca_plus", "ca_minus", "qa_plus", "qa_minus", "tma", "es", "ltm", "gtm", "gtt",
    ]  # fmt: skip
    assert all(threat.wants.published for threat in sets)


def test_comments_and_other_values_stay(params: Path) -> None:
    before = params.read_text().splitlines()
    apply_presets(params, {"mine": {"train.epochs": 3, "loss.miner": None}}, ["mine"])
    after = params.read_text().splitlines()
    different = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert different == [("  epochs: 8", "  epochs: 3")]


def test_a_later_preset_wins(params: Path) -> None:
    presets = {"a": {"train.epochs": 3, "train.batch_size": 32}, "b": {"train.epochs": 4}}
    assert apply_presets(params, presets, ["a", "b"]) == ["train.epochs", "train.batch_size"]
    assert load_params(params).train.epochs == 4


def test_what_is_there_already_is_no_change(params: Path) -> None:
    assert apply_presets(params, {"mine": {"train.epochs": 8}}, ["mine"]) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train.epoch": 3}, r"^preset 'mine': .*params\.yaml has no key 'train\.epoch'; "),
        ({"trian.epochs": 3}, r"has no key 'trian\.epochs'"),
        ({"train.epochs.more": 3}, r"has no key 'train\.epochs\.more'"),
        ({"train.epochs": -1}, r"params\.yaml with preset mine: train\.epochs = -1: a whole number from 0"),
    ],
)
def test_a_mistake_in_a_preset_leaves_the_file(params: Path, values: dict[str, int], message: str) -> None:
    before = params.read_bytes()
    with pytest.raises(ParameterError, match=message):
        apply_presets(params, {"mine": values}, ["mine"])
    assert params.read_bytes() == before
    assert [path.name for path in params.parent.iterdir()] == ["params.yaml"]


def test_an_unknown_preset(params: Path) -> None:
    with pytest.raises(ParameterError, match=r"^unknown preset 'cub'; known: cub200_multisimilarity, "):
        apply_presets(params, PRESETS, ["cub"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not valid YAML"),
        ("- a", "must be a mapping of names"),
        ("a: 3", r"'a' must be a mapping of params\.yaml's keys"),
    ],
)
def test_a_malformed_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        read_presets(write(tmp_path, text))
    with pytest.raises(ParameterError, match=r"cannot be read \(No such file"):
        read_presets(tmp_path / "none.yaml")


def test_parts_are_no_presets(tmp_path: Path) -> None:
    path = write(tmp_path, "_part: &part\n  train.epochs: 3\nwhole:\n  <<: *part\n  train.batch_size: 8\n")
    assert {name: dict(values) for name, values in read_presets(path).items()} == {
        "whole": {"train.epochs": 3, "train.batch_size": 8}
    }


@pytest.mark.parametrize("name", PAPER)
def test_the_full_scale_after_another_preset_and_the_reduced_one(params: Path, name: str) -> None:
    apply_presets(params, PRESETS, [name])
    expected = params.read_text()
    for other in PAPER:
        apply_presets(params, PRESETS, [other, "reduced"])
        apply_presets(params, PRESETS, [name])
        assert load_params(params) == load_params(_written(params.parent / "expected.yaml", expected))


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_photographs_are_seen_as_their_network_saw_its_own_and_met_with_their_radii(params: Path) -> None:
    apply_presets(params, PRESETS, ["photographs"])
    p = load_params(params)
    assert (p.dataset.name, p.model.backbone, p.model.weights) == (
        "folder",
        "efficientnet_lite0",
        "pretrained",
    )
    assert p.model.freeze_batchnorm == "statistics"
    photographs = {n: d for n, d in p.datasets.items() if n not in ("glyphs", "omniglot")}
    assert len(photographs) == 7
    for data in photographs.values():
        assert data.image_size == 80 and set(data.mean) == {0.498} and set(data.std) == {0.502}
    before = load_params(PROJECT / "params.yaml")
    assert [p.datasets[n] for n in ("glyphs", "omniglot")] == [
        before.datasets[n] for n in ("glyphs", "omniglot")
    ]
    radii = {name: threat.epsilon * 255 for name, threat in p.adversary.sets.items()}
    sizes = {"small": 1, "middle": 2, "large": 4}
    assert radii == pytest.approx({name: sizes[name.rpartition("_")[2]] for name in before.adversary.sets})
    assert p.attack.epsilon * 255 == pytest.approx(1)


@pytest.mark.parametrize("name", ["cub200_multisimilarity", "sop_multisimilarity"])
def test_photographs_and_the_papers_settings_undo_each_other(params: Path, name: str) -> None:
    apply_presets(params, PRESETS, ["photographs"])
    photographs = load_params(params)
    apply_presets(params, PRESETS, [name, "reduced"])
    apply_presets(params, PRESETS, ["photographs"])
    again, changed = load_params(params).model_dump(), photographs.model_dump()
    checked = {key: block.pop("check_counts", None) for key, block in again["datasets"].items()}
    assert checked["cub200"] is False  # of the preset `reduced`, as a copy in parts stays one
    for block in changed["datasets"].values():
        block.pop("check_counts", None)
    assert again == changed
    papers = Path(shutil.copy(PROJECT / "params.yaml", params.parent / "papers.yaml"))
    apply_presets(papers, PRESETS, [name])
    apply_presets(params, PRESETS, [name])
    expected, found = load_params(papers), load_params(params)
    assert found.active_dataset == expected.active_dataset
    assert found.model_copy(update={"datasets": expected.datasets}) == expected
