from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mdprop.errors import ParameterError
from mdprop.losses import LOSSES, MultiSimilarityLoss, build_loss
from tests.helpers import golden


def at_angles(degrees: list[float]) -> Tensor:
    """Points on the unit circle."""
    radians = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([radians.cos(), radians.sin()], dim=1)


def naive_loss(
    degrees: list[float], labels: list[int], pos_weight: float, neg_weight: float, margin: float, base: float
) -> float:
    """The loss from its definition, pair by pair."""
    count = len(degrees)
    terms = []
    for a in range(count):
        similarity = [math.cos(math.radians(degrees[a] - degrees[b])) for b in range(count)]
        positives = [similarity[b] for b in range(count) if labels[b] == labels[a] and b != a]
        negatives = [similarity[b] for b in range(count) if labels[b] != labels[a]]
        if not positives or not negatives:
            continue
        kept_positives = [s for s in positives if s - margin < max(negatives)]
        kept_negatives = [s for s in negatives if s + margin > min(positives)]
        if not kept_positives and not kept_negatives:
            continue
        pull = math.log1p(sum(math.exp(-pos_weight * (s - base)) for s in kept_positives)) / pos_weight
        push = math.log1p(sum(math.exp(neg_weight * (s - base)) for s in kept_negatives)) / neg_weight
        terms.append(pull + push)
    return sum(terms) / len(terms)


def test_loss_and_gradient_equal_the_authors() -> None:
    arrays = golden("multisimilarity")
    embeddings = torch.from_numpy(arrays["embeddings"]).requires_grad_(True)
    loss = MultiSimilarityLoss(*(float(arrays[k]) for k in ("pos_weight", "neg_weight", "margin", "thresh")))
    value = loss(embeddings, torch.from_numpy(arrays["labels"]))
    value.backward()
    expected = torch.from_numpy(arrays["grad"])
    assert value.item() == pytest.approx(float(arrays["loss"]), rel=1e-5)
    assert_close(embeddings.grad, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_the_defaults_are_the_papers() -> None:
    arrays = golden("multisimilarity")
    embeddings, labels = torch.from_numpy(arrays["embeddings"]), torch.from_numpy(arrays["labels"])
    assert MultiSimilarityLoss()(embeddings, labels) == MultiSimilarityLoss(2, 40, 0.1, 0.5)(
        embeddings, labels
    )


@pytest.mark.parametrize(
    "options", [(2.0, 40.0, 0.1, 0.5), (1.0, 5.0, 0.3, 0.7), (2.0, 40.0, 0.0, 0.0), (3.0, 10.0, 1.0, 0.5)]
)
@pytest.mark.parametrize(
    ("degrees", "labels"),
    [
        ([0, 20, 40, 61, 80, 100], [0, 0, 0, 1, 1, 1]),
        ([0, 90, 30, 120, 45, 135], [0, 0, 1, 1, 2, 2]),
        ([5, 50, 200, 210, 340, 100, 20], [0, 0, 1, 1, 1, 2, 2]),
        ([0, 40, 60, 95, 128], [0, 0, 1, 1, 2]),  # the last is alone in its class
    ],
)
def test_the_loss_equals_its_definition_pair_by_pair(
    degrees: list[float], labels: list[int], options: tuple[float, float, float, float]
) -> None:
    value = MultiSimilarityLoss(*options)(at_angles(degrees), torch.tensor(labels))
    assert value.item() == pytest.approx(naive_loss(degrees, labels, *options), rel=1e-6)


def test_pairs_that_are_far_from_each_other_are_left_out() -> None:
    # Classes of one point each: positives at similarity 1, negatives at 0, apart by more than the margin.
    separated = at_angles([0, 0, 90, 90])
    labels = torch.tensor([0, 0, 1, 1])
    assert MultiSimilarityLoss(margin=0.1)(separated, labels) == 0
    assert MultiSimilarityLoss(margin=1.1)(separated, labels) > 0


@pytest.mark.parametrize(
    ("degrees", "labels"),
    [
        ([0, 0, 180, 180], [0, 0, 1, 1]),  # nothing to mine
        ([0, 20, 40], [0, 0, 0]),  # no negative
        ([0, 20, 40], [0, 1, 2]),  # no positive
        ([0], [0]),
    ],
)
def test_without_a_valid_pair_the_loss_and_its_gradient_are_zero(
    degrees: list[float], labels: list[int]
) -> None:
    embeddings = at_angles(degrees).float().requires_grad_(True)
    value = MultiSimilarityLoss()(embeddings, torch.tensor(labels))
    value.backward()
    assert value == 0
    assert torch.equal(embeddings.grad, torch.zeros_like(embeddings))


def test_a_loss_by_name() -> None:
    assert "multi_similarity" in LOSSES
    loss = build_loss("multi_similarity", {"neg_weight": 5, "margin": 0.3})
    degrees, labels = [0.0, 20, 40, 60, 80, 100], [0, 0, 0, 1, 1, 1]
    expected = naive_loss(degrees, labels, 2.0, 5.0, 0.3, 0.5)
    assert loss(at_angles(degrees), torch.tensor(labels)).item() == pytest.approx(expected, rel=1e-6)


def test_mistakes_in_the_name_and_the_options() -> None:
    with pytest.raises(
        ParameterError, match=r"^loss\.name: unknown loss 'multisimilarity'; known: .*multi_similarity"
    ):
        build_loss("multisimilarity", {})
    with pytest.raises(
        ParameterError,
        match=r"^loss\.options: multi_similarity has no option 'margn'; "
        r"it has: pos_weight, neg_weight, margin, threshold$",
    ):
        build_loss("multi_similarity", {"margn": 0.1})
    for value in ("0.1", None, True, [0.1]):
        with pytest.raises(ParameterError, match=r"^loss\.options\.margin = .*: a number is needed$"):
            build_loss("multi_similarity", {"margin": value})
