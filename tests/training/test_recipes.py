"""Slices with `through`, `pull` and targets by nearness, against a plain statement of what they mean."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mdprop.attacks import target_rows
from mdprop.config.attacks import AttackSettings
from mdprop.layers import extract_branch
from mdprop.losses import MultiSimilarityLoss
from mdprop.methods import METHODS, Method
from mdprop.models import Embedder
from mdprop.parallel.rows import batch_rows
from mdprop.training import make_examples, training_step
from tests.helpers import attack_settings, make_method, small_embedder

LABELS = torch.arange(6).repeat(2)  # every half and third of a batch of 12 holds several classes
IMAGES = torch.rand(12, 1, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
THIRDS = [range(4), range(4, 8), range(8, 12)]
HALVES = [range(6), range(6, 12)]


class Case(NamedTuple):
    """A recipe in the order of the batch; the rows that its slices attack; the order in which they do."""

    slices: list[dict[str, Any]]
    rows: list[range]
    order: list[int]


CASES = {
    "A": Case(
        [
            {"goal": "single_target", "share": "1/2", "branch": "clean"},
            {"goal": "multi_target", "share": "1/2"},
        ],
        HALVES,
        [0, 1],
    ),
    "B": Case(
        [
            {"goal": "single_target", "share": "1/2", "through": "clean"},
            {"goal": "multi_target", "share": "1/2", "through": "clean"},
        ],
        HALVES,
        [0, 1],
    ),
    "one through another's branch": Case(
        [
            {"goal": "single_target", "share": "1/3", "branch": "a", "through": "clean", "epsilon": 0.03},
            {"goal": "multi_target", "share": "1/3", "branch": "b", "pull": 0.5},
            {"goal": "nearest_other", "share": "1/3", "branch": "c", "through": "a", "pull": 2},
        ],
        THIRDS,
        [0, 2, 1],
    ),
    "clean images' branch last": Case(
        [
            {"goal": "nearest_other", "share": "1/2", "branch": "clean", "through": "a"},
            {"goal": "untargeted", "share": "1/2", "branch": "a", "through": "clean"},
        ],
        HALVES,
        [1, 0],
    ),
    "mdprop_near": Case(
        [
            {"goal": "single_target", "share": "1/2"},
            {"goal": "nearest_other", "share": "1/2", "branch": "multi_target"},
        ],
        HALVES,
        [0, 1],
    ),
    "at_near": Case([{"goal": "nearest_other", "branch": "clean"}], [range(12)], [0]),
    "at with a pull": Case([{"goal": "single_target", "branch": "clean", "pull": 1}], [range(12)], [0]),
    "round the batch": Case(
        [
            {"goal": "nearest_other", "share": "3/4", "pull": 1},
            {"goal": "gtm", "share": "3/4", "through": "clean", "pull": 3},
        ],
        [range(9), range(9, 18)],
        [1, 0],
    ),
}


@pytest.mark.parametrize("name", ["at_near", "mdprop_near"])
def test_the_known_methods_are_those_restated_here(name: str) -> None:
    assert METHODS[name] == make_method(name, *CASES[name].slices)


def nearest_of_another_class(embeddings: Tensor, labels: Tensor) -> list[int]:
    found = []
    for i, own in enumerate(embeddings):
        others = [j for j in range(len(labels)) if labels[j] != labels[i]]
        found.append(min(others, key=lambda j: float((embeddings[j] - own).norm())))
    return found


def plain_examples(model: Embedder, case: Case, method: Method, attack: AttackSettings) -> list[Tensor]:
    """Slice by slice, each by a network that has the branch alone through which it is attacked."""
    generator = torch.Generator().manual_seed(4)
    parts = {part.name: part for part in method.adversarial}
    slices = [parts[s.get("name") or _name(s)] for s in case.slices]
    rows = [[row % 12 for row in members] for members in case.rows]
    networks = [extract_branch(model, part.through or part.branch).eval() for part in slices]
    drawn: dict[int, Tensor] = {}
    for i in case.order:
        if slices[i].goal in ("single_target", "multi_target"):
            count = attack.targets if slices[i].goal == "multi_target" else 1
            own = LABELS[rows[i]]
            drawn[i] = target_rows(own, torch.arange(len(own)), count, "other_class", generator)
    shape = (sum(map(len, rows)), 1, 16, 16)
    noise = iter(((2 * torch.rand(shape, generator=generator) - 1).double() * attack.start_noise).split(1))
    starts = {i: torch.cat([next(noise) for _ in rows[i]]) for i in case.order}
    examples = []
    for i, part in enumerate(slices):
        clean, epsilon = IMAGES[rows[i]], attack.epsilon if part.epsilon is None else part.epsilon
        with torch.no_grad():
            embeddings = networks[i](clean + starts[i] if attack.shared_forward else clean)
        if part.goal == "untargeted":
            drawn[i] = torch.arange(len(clean))[None]
        elif i not in drawn:
            drawn[i] = torch.tensor([nearest_of_another_class(embeddings, LABELS[rows[i]])])
        x = clean + starts[i]
        for _ in range(attack.steps):
            x.requires_grad_(True)
            distance = (networks[i](x) - embeddings[drawn[i]]).norm(dim=2).sum()
            (gradient,) = torch.autograd.grad(-distance if part.goal == "untargeted" else distance, x)
            x = x.detach() - epsilon / attack.steps * gradient.sign()
            x = torch.minimum(torch.maximum(x, clean - epsilon), clean + epsilon).clamp(0, 1)
        examples.append(x)
    return examples


def _name(given: dict[str, Any]) -> str:
    branch: str = given.get("branch", given["goal"])
    return given["goal"] if branch == "clean" else branch


def model_for(method: Method) -> Embedder:
    return small_embedder(method.branches).double()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    "attack",
    [attack_settings(), attack_settings(steps=2, start_noise=0.03), attack_settings(shared_forward=True)],
    ids=["one step", "two steps", "a shared pass"],
)
def test_a_step_is_its_plain_statement(name: str, attack: AttackSettings) -> None:
    case, loss = CASES[name], MultiSimilarityLoss()
    method = make_method("mine", *case.slices)
    model = model_for(method)
    examples = plain_examples(model, case, method, attack)
    found, labels = make_examples(
        model.eval(), IMAGES, LABELS, batch_rows(method, 12), attack, torch.Generator().manual_seed(4)
    )
    assert_close(found, torch.cat(examples), rtol=0, atol=1e-8)  # radii are float32
    rows = [[row % 12 for row in own] for own in case.rows]
    assert labels.tolist() == [int(LABELS[row]) for own in rows for row in own]

    inputs = {"clean": [IMAGES]}
    for part, images in zip(case.slices, examples, strict=True):
        inputs.setdefault(part.get("branch", part["goal"]), []).append(images)
    networks = {branch: extract_branch(model, branch).train() for branch in inputs}
    embeddings = torch.cat([networks[branch](torch.cat(images)) for branch, images in inputs.items()])
    expected = loss(embeddings, torch.cat([LABELS, labels]))
    start = 12
    for part, own in zip(case.slices, rows, strict=True):
        moved, start = embeddings[start : start + len(own)], start + len(own)
        squares = [((moved[k] - embeddings[row].detach()) ** 2).sum() for k, row in enumerate(own)]
        expected = expected + part.get("pull", 0) * sum(squares) / len(squares)
    value = training_step(model, loss, method, IMAGES, LABELS, attack, torch.Generator().manual_seed(4))
    assert_close(value, expected)
    value.backward()
    expected.backward()
    for key, parameter in model.network.fc.named_parameters():
        parts = [network.network.fc.get_parameter(key).grad for network in networks.values()]
        assert_close(parameter.grad, sum(parts))


@pytest.mark.parametrize("shared", [False, True])
def test_targets_by_nearness_cost_no_pass_and_no_draw(shared: bool) -> None:
    passes: list[int] = []
    method = make_method("mine", {"goal": "nearest_other", "through": "clean"})
    model = model_for(method).eval()
    model.register_forward_hook(lambda _, inputs, __: passes.append(len(inputs[0])))
    draws, only_noise = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    attack = attack_settings(shared_forward=shared)
    make_examples(model, IMAGES, LABELS, batch_rows(method, 12), attack, draws)
    assert passes == [12] * (1 if shared else 2)
    torch.rand(IMAGES.shape, generator=only_noise)
    assert torch.equal(draws.get_state(), only_noise.get_state())


@pytest.mark.parametrize("size", [1, 12])
def test_a_slice_of_one_class_aims_at_its_own(size: int) -> None:
    method = make_method("mine", {"goal": "nearest_other"})
    model, labels, rows = model_for(method).eval(), torch.zeros(size, dtype=torch.int64), batch_rows
    images, _ = make_examples(
        model, IMAGES[:size], labels, rows(method, size), attack_settings(), torch.Generator()
    )
    assert images.isfinite().all()


def test_no_gradient_of_a_pull_reaches_the_clean_embedding() -> None:
    method = make_method("mine", {"goal": "single_target", "branch": "other", "pull": 1})
    model = model_for(method)

    def nothing(embeddings: Tensor, labels: Tensor) -> Tensor:
        return embeddings.sum() * 0

    training_step(
        model, nothing, method, IMAGES, LABELS, attack_settings(), torch.Generator().manual_seed(0)
    ).backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if "branches" in name}
    clean = [g for name, g in gradients.items() if "branches.clean" in name]
    other = [g for name, g in gradients.items() if "branches.other" in name]
    assert all(g is not None and not g.any() for g in clean)
    assert all(g is not None and g.any() for g in other)
