"""What re-runs what, from DVC's own status."""

from __future__ import annotations

import json

import pytest

METHODS = {"standard": "clean", "at": "single-target", "advprop": "single-target", "mdprop": "multi-target"}
LATER = ("attack", "embed", "evaluate")
ENDS = {"preflight", "report"}
"""Before any training, and after all of it: what both read changes both."""
TRANSFER = {"goal": "untargeted", "source": "at/0"}


def stages(names, methods=METHODS, seed=0):
    return {f"{name}-{METHODS[m]}@{m}-{seed}" for name in names for m in methods}


def test_nothing_to_do_after_a_run(project):
    assert project.would_run() == set()
    assert project.repro() == set()


def test_targets_reach_the_multi_target_methods_only(project):
    with project.params(attack__targets=4):
        assert project.would_run() == stages(("train", *LATER), ["mdprop"]) | ENDS


def test_the_attack_reaches_the_adversarial_methods_only(project):
    with project.params(attack__epsilon=0.02):
        expected = stages(("train", *LATER), ["at", "advprop", "mdprop"])
        assert project.would_run() == expected | ENDS


def test_a_recipe_reaches_its_own_method_only(project):
    slices = [{"goal": "single_target", "share": "1/2", "branch": "near", "epsilon": 0.02}]
    recipes = {**project.read_params()["recipes"], "near": slices}
    with project.params(recipes=recipes, methods__single_target=["at", "advprop", "near"]):
        assert project.would_run() == {f"{n}-single-target@near-0" for n in ("train", *LATER)} | ENDS
    with project.params(recipes=recipes):
        assert project.would_run() == ENDS


def test_answering_branches_do_not_reach_training(project):
    with project.params(adversary__branches=["clean", "multi_target"]):
        assert project.would_run() == stages(LATER) | ENDS


def test_sources_add_their_stages_and_do_not_reach_training(project):
    sets = {**project.read_params()["adversary"]["sets"], "moved": TRANSFER}
    with project.params(adversary__sources=["at/0"], adversary__sets=sets):
        assert project.would_run() == stages(LATER) | {"surrogate@at/0"} | ENDS


def test_a_transfer_from_parameters_to_the_report(project):
    def metrics():
        return json.loads((project.path / "report" / "metrics.json").read_text())

    before = metrics()
    sets = {
        "here": {"goal": "untargeted"},
        "moved": TRANSFER,
        "together": {"goal": "untargeted", "branch": "all"},
    }
    with project.params(adversary__sources=["at/0"], adversary__sets=sets):
        assert project.repro() == stages(LATER) | {"surrogate@at/0"} | ENDS
        found = {method: set(values) for method, values in metrics().items()}
        assert project.repro() == set()
    always = {"clean", "here", "worst_case", "checks"}
    assert found == {
        "standard": always | {"moved"},
        "at": always,
        "advprop": always | {"moved", "together"},
        "mdprop": always | {"moved", "together"},
    }
    project.repro()
    assert metrics() == before


def test_editing_a_goal_reaches_training_and_attacks(project):
    with project.edited("mdprop/attacks/goals/towards.py"):
        assert project.would_run() == stages(("train", *LATER)) | ENDS


def test_ks_reach_evaluation_and_report_only(project):
    with project.params(evaluate__ks=[1, 3]):
        assert project.would_run() == stages(["evaluate"]) | {"report"}


def test_the_adversary_does_not_reach_training(project):
    with project.params(adversary__steps=2):
        assert project.would_run() == stages(LATER) | ENDS


def test_what_preflight_refuses_stops_before_training(project):
    with project.params(adversary__targets=1000, train__epochs=2):
        done = project.run("dvc", "repro")
        assert done.returncode != 0
        assert "Running stage 'preflight'" in done.stdout and "train-" not in done.stdout
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert lines[0] == "error: params.yaml has 3 problems:"
        assert all(".targets = 1000: the test data offer " in line for line in lines[1:])
    project.repro()
    assert project.would_run() == set()


def test_a_block_of_another_data_set_reaches_nothing(project):
    with project.params(datasets__folder__resize=65):
        assert project.would_run() == set()


def test_a_new_seed_runs_alone(project):
    with project.params(seeds=[0, 1]):
        assert project.would_run() == stages(("train", *LATER), seed=1) | {"report"}


@pytest.mark.parametrize("name", ["multi_similarity.py", "__init__.py"])
def test_editing_a_loss_trains_again(project, name):
    with project.edited(f"mdprop/losses/{name}"):
        assert project.would_run() == stages(("train", *LATER)) | ENDS


@pytest.mark.parametrize("name", ["page.py", "templates/index.html.j2"])
def test_editing_the_report_writes_the_report_only(project, name):
    with project.edited(f"mdprop/report/{name}"):
        assert project.would_run() == {"report"}


def test_editing_the_drawing_prepares_again(project):
    with project.edited("mdprop/data/readers/glyphs.py"):
        assert project.would_run() == stages(("train", *LATER)) | {"prepare"} | ENDS


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
        assert project.repro() == stages(("train", *LATER), ["standard"], seed=1) | ENDS
        assert list(metrics()) == ["standard"]
        assert metrics()["standard"]["clean"] != before["standard"]["clean"]
    project.repro()
    assert metrics() == before
