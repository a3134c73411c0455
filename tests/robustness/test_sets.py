from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mdprop.attacks import Threat
from mdprop.config.attacks import AdversarySettings
from mdprop.data.loading import transforms
from mdprop.data.stores.adversarial import attack_settings, read_adversarial, read_outcomes
from mdprop.data.stores.images import ImageStore
from mdprop.errors import ResultError
from mdprop.models import save_model
from mdprop.models.joint import JointEmbedder
from mdprop.robustness.generation import Adversary
from mdprop.robustness.sets import attacked_model, attacks_for_others, attacks_on_itself, make_sets
from mdprop.runs import Run
from tests.helpers import adversary_settings, small_store

TRANSFORM = transforms.test_transform(16, 16)
SETS: dict[str, dict[str, Any]] = {
    "white": {},
    "through_b": {"branch": "b"},
    "through_mixture": {"branch": "clean+25%a"},
    "through_all": {"branch": "all"},
    "through_unknown": {"branch": "z"},
    "from_x": {"source": "x/0"},
    "from_x_b": {"source": "x/0", "branch": "b"},
    "from_other": {"source": "other/3"},
}


def threats(**sets: dict[str, Any]) -> dict[str, Threat]:
    shared = {"goal": "untargeted", "epsilon": 0.1, "steps": 2}
    return {name: Threat(**{**shared, **own}) for name, own in (sets or SETS).items()}


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """Writes a model of random weights with these branches."""
    monkeypatch.chdir(tmp_path)

    def make(method: str, *branches: str) -> Run:
        from mdprop.models import build_model

        torch.manual_seed(len(method))
        model = build_model("conv4", 8, branches=branches, mean=[0.5], std=[0.25]).eval()
        run = Run(method, 0)
        save_model(model, run.folder, backbone="conv4", embedding_dim=8)
        return run

    return make


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return small_store(tmp_path / "test.arrow", classes=4, images=3)


def settings(**sets: dict[str, Any]) -> AdversarySettings:
    return adversary_settings(threats(**sets))


def plan_of(run: Run, *answering: str) -> dict[str, list[str]]:
    return {branch: list(own) for branch, own in attacks_on_itself(run, answering, threats()).items()}


def test_white_boxes_go_through_each_answering_branch_and_others_through_their_own(
    trained: Callable[..., Run],
) -> None:
    assert plan_of(trained("x", "clean", "a", "b"), "clean", "b") == {
        "clean": ["white"],
        "b": ["white", "through_b"],
        "clean+25%a": ["through_mixture"],
        "all": ["through_all"],
    }


def test_a_network_without_branches_meets_no_attack_on_them(trained: Callable[..., Run]) -> None:
    run = trained("plain", "clean")
    assert plan_of(run, "clean") == {"clean": ["white"]}
    assert list(run.met(threats())) == ["white", "from_x", "from_x_b", "from_other"]


def test_a_run_is_no_source_for_itself(trained: Callable[..., Run]) -> None:
    run = trained("x", "clean", "a", "b")
    assert "from_x" not in run.met(threats())
    plan = attacks_for_others(run, threats())
    assert {branch: list(own) for branch, own in plan.items()} == {"clean": ["from_x"], "b": ["from_x_b"]}


def test_a_source_without_the_branch_is_refused(trained: Callable[..., Run]) -> None:
    with pytest.raises(
        ResultError, match=r"sets\.from_x_b\.branch: its source x/0 has no branch 'b'; .*: clean$"
    ):
        attacks_for_others(trained("x", "clean"), threats())


def test_images_lie_where_those_who_answer_look_for_them(
    trained: Callable[..., Run], store: ImageStore
) -> None:
    run, sets = trained("x", "clean", "b"), {"white": {}, "all": {"branch": "all"}, "b": {"branch": "b"}}
    chosen = settings(**sets)
    plan = attacks_on_itself(run, ["clean", "b"], chosen.sets)
    make_sets(run, plan, partial(attacked_model, run), store, TRANSFORM, chosen)
    for answering in ("clean", "b"):
        for name, threat in chosen.sets.items():
            path = run.attacked(answering, name, threat)
            assert attack_settings(path)["branch"] == (threat.branch or answering)
            assert read_outcomes(path).ids.tolist() == store.ids.tolist()
    assert run.attacked("b", "white", chosen.sets["white"]).parent.name == "b"
    assert run.attacked("b", "b", chosen.sets["b"]) == run.attacked("clean", "b", chosen.sets["b"])


def test_progress_is_in_images_and_names_the_set(
    trained: Callable[..., Run],
    store: ImageStore,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("mdprop.runtime.progress.SECONDS_BETWEEN_LINES", 0.0)
    run, chosen = trained("x", "clean", "b"), settings(near={}, far={"epsilon": 0.2})
    plan = attacks_on_itself(run, ["clean", "b"], chosen.sets)
    make_sets(run, plan, partial(attacked_model, run), store, TRANSFORM, chosen)
    shown = [re.sub(r", .*|in .*", "", line) for line in capsys.readouterr().err.splitlines()]
    n = len(store)
    sets = re.sub(r"\d+ s", "", "\n".join(shown))
    assert "attack x/0: set 2 of 2" in sets
    assert f"attack x/0: {2 * n} images " in shown
    assert f"attack x/0 through b: {2 * n} images " in shown


def test_a_transferred_attack_is_the_white_box_of_its_source(
    trained: Callable[..., Run], store: ImageStore
) -> None:
    source, chosen = trained("x", "clean", "b"), settings(white={}, moved={"source": "x/0"})
    load = partial(attacked_model, source)
    make_sets(source, attacks_for_others(source, chosen.sets), load, store, TRANSFORM, chosen)
    adversary = Adversary(load("clean"), store, TRANSFORM, {"white": chosen.sets["white"]}, 0, 0)
    expected = torch.cat([part.images for part in adversary.attack("white")])
    path = Run("y", 0).attacked("clean", "moved", chosen.sets["moved"])
    assert path == Path("surrogates/x/0/moved.arrow")
    assert torch.equal(torch.cat([images for _, _, images in read_adversarial(path)]), expected)


def test_an_attack_on_all_branches_hurts_each_of_them(trained: Callable[..., Run], store: ImageStore) -> None:
    run = trained("x", "clean", "b")
    joint = attacked_model(run, "all")
    assert isinstance(joint, JointEmbedder)
    aim = threats(all={"branch": "all", "steps": 10, "step_ratio": 0.25, "epsilon": 0.3})
    adversary = Adversary(joint, store, TRANSFORM, aim, 0, 0)
    (part,) = adversary.attack("all")
    clean = torch.cat([torch.stack([TRANSFORM(store.image(i)) for i in range(len(store))])]) / 255
    reached = -part.objective.numpy()
    squares = []
    for branch in ("clean", "b"):
        model = attacked_model(run, branch)
        with torch.no_grad():
            moved = (model(part.images) - model(clean)).norm(dim=1)
        assert (moved > 0).all()
        squares.append(moved.numpy() ** 2)
    np.testing.assert_allclose(reached**2, np.mean(squares, axis=0), rtol=1e-3)
