from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdprop.attacks import Threat
from mdprop.attacks.norms import LinfBall
from mdprop.config.schema import EvaluateSettings
from mdprop.data.loading import transforms
from mdprop.data.loading.datasets import store_batches
from mdprop.data.stores.adversarial import write_adversarial
from mdprop.data.stores.embeddings import write_embeddings
from mdprop.data.stores.images import ImageStore
from mdprop.models import Embedder
from mdprop.models.conv4 import Conv4
from mdprop.robustness.checks import CHECKS, Finding, check_run, counts, find, to_json
from mdprop.robustness.embedding import extract_embeddings, input_batches
from mdprop.robustness.evaluation import evaluate_run
from mdprop.robustness.evidence import Evidence
from mdprop.robustness.generation import Adversary
from mdprop.runs import Run
from tests.helpers import small_embedder, small_store

CLASSES, IMAGES = 20, 10
IDS = np.arange(CLASSES * IMAGES)
LABELS = np.repeat(np.arange(CLASSES), IMAGES)
TRANSFORM = transforms.test_transform(16, 16)
CPU = torch.device("cpu")


def hits(right: int, first: int = 0) -> NDArray[np.bool_]:
    """In every class `right` queries of ten, from the `first` on."""
    return (np.arange(IMAGES * CLASSES) - first) % IMAGES < right


def columns(right: int | NDArray[np.bool_], **changes: Any) -> dict[str, NDArray[Any]]:
    """Of a set without a fault, but for the changes."""
    found = hits(right) if isinstance(right, int) else right
    plain = {
        "hit": found,
        "moved": 0.3,
        "moved_in_attack": 0.3,
        "objective": 0.5,
        "size": 1.0,
        "outside": 0.0,
    }
    values = {"id": IDS, "label": LABELS, **plain, "zero_gradient": False, "broken_gradient": False} | changes
    return {name: np.broadcast_to(np.asarray(value), IDS.shape) for name, value in values.items()}


def threat(goal: str = "untargeted", epsilon: float = 0.05, **changes: Any) -> Threat:
    return Threat(goal=goal, epsilon=epsilon, **changes)


def found(
    *sets: tuple[str, Threat, dict[str, NDArray[Any]]],
    clean: int = 9,
    spread: float = 0.9,
    components: int | None = None,
    apart_alone: float = 0.0,
) -> list[Finding]:
    parts = {"clean": columns(clean), **{name: part for name, _, part in sets}}
    attacks = {name: attack for name, attack, _ in sets}
    return find(Evidence(parts, attacks, spread, IDS, LABELS, components, apart_alone))


def names(findings: list[Finding]) -> list[str]:
    return [finding.check for finding in findings]


# --- each check, on numbers made up ---


def test_a_suite_without_a_fault_is_silent() -> None:
    assert not found(
        ("noise", threat(optimizer="noise"), columns(8)),
        ("pgd_10", threat(), columns(5)),
        ("pgd_100", threat(steps=100), columns(4)),
        ("restarts", threat(steps=100, restarts=5), columns(3)),
        ("square", threat(optimizer="square", steps=5000), columns(6)),
        ("nothing", threat(epsilon=0), columns(9, moved=0, moved_in_attack=0, size=0)),
        ("large", threat(epsilon=0.5), columns(0)),
    )


@pytest.mark.parametrize("more", [{"steps": 100}, {"restarts": 5}, {"steps": 20, "restarts": 2}])
def test_more_steps_or_restarts_that_help(more: dict[str, Any]) -> None:
    (finding,) = found(("few", threat(), columns(4)), ("many", threat(**more), columns(6)))
    assert finding.check == "more_search_helps"
    assert finding.sets == ("many", "few")
    assert finding.text.startswith("many leaves Recall@1 at 60.0 %, above the 40.0 % of few (+20.0 points, ")
    assert finding.numbers["difference"] == pytest.approx(0.2)
    assert finding.numbers["low"] > 0


@pytest.mark.parametrize(
    ("other", "right"),
    [
        (threat(steps=100, epsilon=0.025), hits(6)),
        (threat(steps=100, goal="from_centroid"), hits(6)),
        (threat(steps=5, restarts=3), hits(6)),
        (threat(), hits(6)),
        (threat(steps=100), hits(4, first=3)),
        (threat(steps=100), hits(4) | (IDS == 9)),
    ],
    ids=["epsilon", "goal", "neither is stronger", "neither has more", "as many", "half a point more"],
)
def test_more_search_that_does_not_help(other: Threat, right: NDArray[np.bool_]) -> None:
    assert not found(("few", threat(), columns(4)), ("other", other, columns(right)))


@pytest.mark.parametrize("goal", ["qa_minus", "unadversarial"])
def test_goals_that_may_leave_recall_as_it_is_are_not_judged_by_it(goal: str) -> None:
    few, many = threat(goal, epsilon=0.5), threat(goal, epsilon=0.5, steps=100)
    assert not found(("few", few, columns(4)), ("many", many, columns(6)))


@pytest.mark.parametrize(
    ("goal", "changes"), [("untargeted", {"moved": 0.01}), ("untargeted", {"hit": hits(8)}), ("ca_plus", {})]
)
def test_epsilon_zero_that_differs_from_clean(goal: str, changes: dict[str, Any]) -> None:
    part = columns(9, **({"moved": 0, "moved_in_attack": 0, "size": 0} | changes))
    if goal == "ca_plus":
        del part["hit"]
        part["moved"] = part["moved_in_attack"] = np.where(IDS == 7, 0.01, 0)
    findings = found(("nothing", threat(goal, epsilon=0), part))
    assert "epsilon_zero_moves" in names(findings)
    assert findings[0].numbers["flipped"] == (20 if "hit" in changes else 0)


@pytest.mark.parametrize(
    ("attack", "components", "right", "fires"),
    [
        (threat(epsilon=0.5), None, 2, True),
        (threat("single_target", epsilon=0.5), None, 2, True),
        (threat(epsilon=0.5), None, hits(1) & (IDS % 20 < 10), False),
        (threat(epsilon=0.4), None, 2, False),
        (threat(epsilon=0.5, optimizer="square"), None, 2, False),
        (threat(epsilon=0.5, units="normalized"), None, 2, False),
        (threat(epsilon=8, norm="l2"), 256, 2, True),
        (threat(epsilon=7.9, norm="l2"), 256, 2, False),
        (threat(epsilon=100, norm="l2"), None, 2, False),
    ],
)
def test_recall_that_survives_any_radius(
    attack: Threat, components: int | None, right: Any, fires: bool
) -> None:
    findings = found(("large", attack, columns(right)), components=components)
    assert names(findings) == ["survives_any_radius"] * fires
    if fires:  # 9 images of the class among the 199 others
        assert findings[0].numbers["chance"] == pytest.approx(9 / 199)


def test_chance_in_a_gallery_of_its_own() -> None:
    gallery_labels = np.array([0, 0, 1, 2, 3, 30])
    evidence = Evidence({"large": columns(2)}, {}, 0.9, np.arange(1000, 1006), gallery_labels)
    assert evidence.chance("large") == pytest.approx((2 + 1 + 1 + 1) / 6 / CLASSES)


def test_noise_that_does_as_much() -> None:
    noise, attack = ("noise", threat(optimizer="noise"), columns(6)), ("pgd", threat("tma"), columns(6))
    (finding,) = found(noise, attack)
    assert (finding.check, finding.sets) == ("noise_does_as_much", ("pgd", "noise"))
    assert finding.text.startswith("pgd brings Recall@1 to 60.0 %, noise alone (noise) to 60.0 % (")


@pytest.mark.parametrize(
    ("control", "noisy", "attacked"),
    [
        ({}, 6, 4),
        ({}, 9, 9),
        ({"epsilon": 0.1}, 6, 6),
        ({"norm": "l2"}, 6, 6),
        ({}, 0, 0),
    ],
    ids=["the attack does more", "noise does nothing", "other radius", "other norm", "both at chance"],
)
def test_noise_that_does_less(control: dict[str, Any], noisy: int, attacked: int) -> None:
    noise = ("noise", threat(optimizer="noise", **control), columns(noisy))
    assert not found(noise, ("pgd", threat(), columns(attacked)))


def test_a_black_box_that_beats_the_white_box() -> None:
    square = ("square", threat(optimizer="square", steps=1000, start_noise=0), columns(3))
    (finding,) = found(("pgd", threat(), columns(6)), square)
    assert (finding.check, finding.sets) == ("black_box_wins", ("pgd", "square"))
    assert not found(("pgd", threat(), columns(6)), square, ("apgd", threat(optimizer="apgd"), columns(3)))
    assert not found(("pgd", threat(epsilon=0.01), columns(6)), square)
    assert not found(("pgd", threat("single_target"), columns(6)), square)


@pytest.mark.parametrize(
    ("goal", "objective", "share", "fires"),
    [
        ("untargeted", 0.0, 0.06, True),
        ("untargeted", -2.0, 0.06, False),
        ("untargeted", 0.0, 0.05, False),
        ("ltm", 0.2, 0.06, True),
        ("ltm", 0.0, 1.0, False),
        ("qa_plus", 0.0, 1.0, False),
        ("single_target", 0.2, 0.06, True),
        ("single_target", 0.0, 1.0, False),
    ],
)
def test_zero_gradients_short_of_the_goal(goal: str, objective: float, share: float, fires: bool) -> None:
    part = columns(5, zero_gradient=share * len(IDS) > IDS, objective=objective)
    findings = found(("x", threat(goal), part))
    assert names(findings) == ["no_gradient"] * fires
    if fires:
        assert findings[0].numbers == {"share": share}


def test_gradients_that_are_not_finite() -> None:
    (finding,) = found(("x", threat(), columns(5, broken_gradient=IDS == 3)))
    assert finding.check == "broken_gradient"
    assert finding.text == "x meets gradients that are not finite at 0.5 % of its images"


@pytest.mark.parametrize(("epsilon", "size"), [(0.05, 1.01), (0.05, float("nan")), (0.0, 0.01)])
def test_a_perturbation_beyond_epsilon(epsilon: float, size: float) -> None:
    sizes = np.where(IDS == 3, size, 0.5 if epsilon else 0)
    changes = {} if epsilon else {"moved": 0, "moved_in_attack": 0, "hit": hits(9)}
    (finding,) = found(("x", threat(epsilon=epsilon), columns(5, size=sizes, **changes)))
    assert finding.check == "beyond_epsilon"
    assert finding.numbers["size"] == pytest.approx(size * (epsilon or 1), nan_ok=True)


@pytest.mark.parametrize(("epsilon", "size"), [(0.05, 1.0001), (1e-4, 1.009)])
def test_a_perturbation_beyond_epsilon_by_rounding(epsilon: float, size: float) -> None:
    assert not found(("x", threat(epsilon=epsilon), columns(5, size=size)))


def test_saved_images_that_are_others() -> None:
    (finding,) = found(("x", threat(), columns(5, moved=np.where(IDS == 3, 0.25, 0.3))))
    assert finding.check == "other_when_saved"
    assert finding.numbers["apart"] == pytest.approx(0.05)
    assert not found(("x", threat(), columns(5, moved=0.3 + 1e-4)))


def test_a_collapsed_network() -> None:
    (finding,) = found(clean=1, spread=0.001)
    assert (finding.check, finding.sets) == ("collapsed", ("clean",))


LESS = {"another branch": {"branch": "b"}, "all": {"branch": "all"}, "another run": {"source": "at/0"}}


@pytest.mark.parametrize("means", LESS.values(), ids=list(LESS))
def test_attacks_elsewhere_that_beat_the_white_box(means: dict[str, Any]) -> None:
    elsewhere = threat(**means, optimizer="apgd", steps=50)
    weaker = ("half", threat("single_target"), columns(6)), ("white", threat(), columns(5))
    (finding,) = found(*weaker, ("elsewhere", elsewhere, columns(3)))
    assert finding.check == ("transfer_wins" if "source" in means else "other_branch_wins")
    assert finding.sets == ("white", "elsewhere")
    assert "above the 30.0 % of elsewhere (+20.0 points, " in finding.text
    assert not found(*weaker, ("elsewhere", elsewhere, columns(5)))
    assert not found(*weaker, ("elsewhere", threat(**means, epsilon=0.1), columns(3)))
    strong = ("strong", threat(optimizer="apgd", restarts=3), columns(3))
    assert not found(*weaker, strong, ("elsewhere", elsewhere, columns(3)))


def test_attacks_elsewhere_are_no_white_boxes() -> None:
    """They may do less than noise, leave more than chance, and end elsewhere in the answering space."""
    part = columns(8)
    del part["moved_in_attack"]
    assert not found(
        ("noise", threat(optimizer="noise"), columns(7)),
        ("large", threat(epsilon=0.5, branch="b"), part),
        ("elsewhere", threat(source="at/0"), part),
    )


@pytest.mark.parametrize(("apart", "fires"), [(2e-3, True), (9e-4, False), (float("nan"), True)])
def test_a_result_that_changes_with_its_batch(apart: float, fires: bool) -> None:
    evidence = Evidence({"clean": columns(9)}, {}, 0.9, IDS, LABELS, apart_alone=apart)
    assert names(find(evidence)) == ["changes_with_batch"] * fires


def test_every_finding_is_one_sentence_that_names_its_sets() -> None:
    findings = found(
        ("few", threat(), columns(4)),
        (
            "many",
            threat(steps=100),
            columns(6, broken_gradient=True, zero_gradient=True, size=2, moved=0, outside=1),
        ),
        ("square", threat(optimizer="square"), columns(2)),
        ("noise", threat(optimizer="noise"), columns(3)),
        ("large", threat(epsilon=0.6), columns(4)),
        ("nothing", threat(epsilon=0), columns(2)),
        ("other", threat(branch="b"), columns(2)),
        ("transfer", threat(source="at/0"), columns(2)),
        spread=0.0,
        apart_alone=1.0,
    )
    assert set(names(findings)) == set(CHECKS)
    for finding in findings:
        assert "\n" not in finding.text and not finding.text.endswith(".")
        if finding.sets != ("clean",):
            assert all(name in finding.text for name in finding.sets)
        assert finding.numbers and all(type(v) in (int, float) for v in finding.numbers.values())
    assert sum(counts(findings).values()) == len(findings)
    assert list(counts([])) == list(CHECKS)
    content = json.loads(to_json({"clean": findings, "multi_target": []}))
    assert content["multi_target"] == []
    assert content["clean"][0].keys() == {"check", "sets", "text", "numbers"}
    broken = to_json({"clean": [Finding("beyond_epsilon", ("x",), "", {"size": float("nan")})]})
    assert json.loads(broken)["clean"][0]["numbers"] == {"size": None}


# --- planted in networks and attacks ---


class Planted(Embedder):
    """Does something to the images first."""

    def __init__(self, fault: Callable[[Tensor], Tensor]) -> None:
        super().__init__(small_embedder().network, [0.5], [0.25], 1)
        self.fault = fault

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(self.fault(images))


@torch.no_grad()
def centre(model: Planted, store: ImageStore) -> None:
    """Embeddings of an untrained network are nearly alike: move their mean to 0."""
    outputs: list[Tensor] = []
    hook = model.network.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    for _, _, images in store_batches(store, TRANSFORM):
        model(images)
    hook.remove()
    assert isinstance(model.network, Conv4)
    model.network.fc.bias.sub_(torch.cat(outputs).mean(0))


def checked(
    fault: Callable[[Tensor], Tensor],
    folder: Path,
    threats: dict[str, Threat],
    *,
    centred: bool = True,
    classes: int = 6,
) -> list[Finding]:
    """What is found in an untrained network that does this to its images, from images to findings.

    Attacks on another branch are on one that shares its weights and does nothing to the images.
    """
    folder.mkdir(exist_ok=True)
    store, run = small_store(folder / "test.arrow", classes, images=4), Run("x", 0, folder)
    torch.manual_seed(0)
    model = Planted(fault).eval()
    if centred:
        centre(model, store)
    another = Planted(plain).eval()
    another.network = model.network
    for name, aim in threats.items():
        adversary = Adversary(model if aim.white_box else another, store, TRANSFORM, {name: aim}, 0, 0)
        write_adversarial(run.attacked("clean", name, aim), adversary.attack(name), {})
    for name, batches in input_batches(run, "clean", {"clean": store}, TRANSFORM, threats).items():
        extract_embeddings(model, batches, run.embeddings("clean", name), CPU)
    settings = EvaluateSettings(ks=(1,), seed=0, exact_limit=1000)
    parts = evaluate_run(run, ["clean"], threats, settings)[1]
    return check_run(run, "clean", parts, threats, 256)


def plain(images: Tensor) -> Tensor:
    return images


SUITE = {
    "pgd": threat(),
    "more": threat(steps=30, restarts=2),
    "l2": threat("single_target", epsilon=0.5, norm="l2"),
    "hinge": threat("ltm", epsilon=0.3),
    "square": threat(optimizer="square", steps=30),
    "noise": threat(optimizer="noise"),
    "nothing": threat(epsilon=0),
    "large": threat(epsilon=0.5),
}


def test_a_plain_network_under_plain_attacks_is_silent(tmp_path: Path) -> None:
    assert checked(plain, tmp_path, SUITE) == []


def test_a_network_that_rounds_pixels_has_no_gradient(tmp_path: Path) -> None:
    findings = checked(lambda images: (16 * images).round() / 16, tmp_path, SUITE)
    without = {finding.sets[0] for finding in findings if finding.check == "no_gradient"}
    assert {"pgd", "more", "l2"} <= without <= set(SUITE) - {"square", "noise", "nothing"}


def test_a_branch_that_hides_its_gradient(tmp_path: Path) -> None:
    threats = {"white": threat(), "other": threat(branch="b")}
    hidden = checked(lambda images: (16 * images).round() / 16, tmp_path / "hidden", threats, classes=16)
    assert {"no_gradient", "other_branch_wins"} <= set(names(hidden))
    assert checked(plain, tmp_path / "plain", threats, classes=16) == []


def test_a_network_that_looks_at_the_whole_batch(tmp_path: Path) -> None:
    findings = checked(lambda images: images - images.mean(0), tmp_path, {"pgd": SUITE["pgd"]})
    assert "changes_with_batch" in names(findings)


def test_a_network_with_chance_in_its_forward_pass(tmp_path: Path) -> None:
    threats = {"nothing": SUITE["nothing"], "pgd": SUITE["pgd"]}
    findings = checked(lambda images: images + 0.1 * torch.randn_like(images), tmp_path, threats)
    assert {"epsilon_zero_moves", "other_when_saved"} <= set(names(findings))


def test_a_network_that_embeds_all_images_alike(tmp_path: Path) -> None:
    assert names(checked(plain, tmp_path, {"pgd": SUITE["pgd"]}, centred=False)) == ["collapsed"]


def test_an_attack_that_forgets_to_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LinfBall, "clip", lambda ball, moved: moved.clamp(0, 1))
    findings = checked(plain, tmp_path, {"pgd": threat(step_ratio=0.5)})
    assert names(findings) == ["beyond_epsilon"]


def test_images_saved_in_eight_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attack = Adversary.attack

    def rounded(self: Adversary, name: str) -> Any:
        return (part._replace(images=(255 * part.images).round() / 255) for part in attack(self, name))

    monkeypatch.setattr(Adversary, "attack", rounded)
    assert names(checked(plain, tmp_path, {"pgd": threat(epsilon=0.01)})) == ["other_when_saved"]


def test_branches_are_checked_each_by_itself(tmp_path: Path) -> None:
    run, parts = Run("x", 0, tmp_path), []
    for branch, vectors in (("clean", np.ones((200, 3))), ("other", np.eye(20)[LABELS])):
        for name in ("clean", "alone"):
            write_embeddings(run.embeddings(branch, name), [(IDS, LABELS, vectors.astype(np.float32))])
        where = {"set": np.full(200, "clean"), "branch": np.full(200, branch)}
        parts.append({**where, "id": IDS, "label": LABELS, "hit": hits(9)})
    assert names(check_run(run, "clean", parts, {})) == ["collapsed"]
    assert check_run(run, "other", parts, {}) == []


def test_pixels_out_of_range() -> None:
    (finding,) = found(("cut", threat(), columns(4, outside=np.where(IDS == 3, 0.02, 0))))
    assert (finding.check, finding.sets) == ("out_of_range", ("cut",))
    assert finding.text == "cut has pixels 0.02 outside [0, 1]"
