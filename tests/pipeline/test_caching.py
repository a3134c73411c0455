"""What re-runs what, from DVC's own status."""

from __future__ import annotations

import json

import pytest

METHODS = {"standard": "clean", "at": "single-target", "advprop": "single-target", "mdprop": "multi-target"}
LATER = ("attack", "embed", "evaluate")


def stages(names, methods=METHODS, seed=0):
    return {f"{name}-{METHODS[m]}@{m}-{seed}" for name in names for m in methods}


def test_nothing_to_do_after_a_run(project):
    assert project.would_run() == set()
    assert project.repro() == set()


def test_targets_reach_the_multi_target_methods_only(project):
    with project.params(attack__targets=4):
        assert project.would_run() == stages(("train", *LATER), ["mdprop"]) | {"report"}


def test_the_attack_reaches_the_adversarial_methods_only(project):
    with project.params(attack__epsilon=0.02):
        expected = stages(("train", *LATER), ["at", "advprop", "mdprop"])
        assert project.would_run() == expected | {"report"}


def test_a_recipe_reaches_its_own_method_only(project):
    slices = [{"goal": "single_target", "share": "1/2", "branch": "near", "epsilon": 0.02}]
    recipes = {**project.read_params()["recipes"], "near": slices}
    with project.params(recipes=recipes, methods__single_target=["at", "advprop", "near"]):
        assert project.would_run() == {f"{n}-single-target@near-0" for n in ("train", *LATER)} | {"report"}
    with project.params(recipes=recipes):
        assert project.would_run() == {"report"}


def test_answering_branches_do_not_reach_training(project):
    with project.params(adversary__branches=["clean", "multi_target"]):
        assert project.would_run() == stages(LATER) | {"report"}


def test_editing_a_goal_reaches_training_and_attacks(project):
    with project.edited("mdprop/attacks/goals/towards.py"):
        assert project.would_run() == stages(("train", *LATER)) | {"report"}


def test_ks_reach_evaluation_and_report_only(project):
    with project.params(evaluate__ks=[1, 3]):
        assert project.would_run() == stages(["evaluate"]) | {"report"}


def test_the_adversary_does_not_reach_training(project):
    with project.params(adversary__steps=2):
        assert project.would_run() == stages(LATER) | {"report"}


def test_a_block_of_another_data_set_reaches_nothing(project):
    with project.params(datasets__folder__resize=65):
        assert project.would_run() == set()


def test_a_new_seed_runs_alone(project):
    with project.params(seeds=[0, 1]):
        assert project.would_run() == stages(("train", *LATER), seed=1) | {"report"}


@pytest.mark.parametrize("name", ["multi_similarity.py", "__init__.py"])
def test_editing_a_loss_trains_again(project, name):
    with project.edited(f"mdprop/losses/{name}"):
        assert project.would_run() == stages(("train", *LATER)) | {"report"}


@pytest.mark.parametrize("name", ["page.py", "templates/index.html.j2"])
def test_editing_the_report_writes_the_report_only(project, name):
    with project.edited(f"mdprop/report/{name}"):
        assert project.would_run() == {"report"}


def test_editing_the_drawing_prepares_again(project):
    with project.edited("mdprop/data/readers/glyphs.py"):
        assert project.would_run() == stages(("train", *LATER)) | {"prepare", "report"}


def test_a_seed_repeats_itself_and_another_differs(project):
    def metrics():
        return json.loads((project.path / "report" / "metrics.json").read_text())

    before = metrics()
    weights = project.path / "runs" / "mdprop" / "0" / "model.safetensors"
    bytes_before = weights.read_bytes()
    ran = project.repro("--force", "--single-item", "train-multi-target@mdprop-0")
    assert ran == {"train-multi-target@mdprop-0"}
    assert weights.read_bytes() == bytes_before
    forced = project.repro("--force", "evaluate-multi-target@mdprop-0")
    assert stages(LATER, ["mdprop"]) <= forced
    project.repro()
    assert metrics() == before
    with project.params(seeds=[1], methods__single_target=[], methods__multi_target=[]):
        assert project.repro() == stages(("train", *LATER), ["standard"], seed=1) | {"report"}
        assert list(metrics()) == ["standard"]
        assert metrics()["standard"]["clean"] != before["standard"]["clean"]
    project.repro()
    assert metrics() == before
