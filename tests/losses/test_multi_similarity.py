from __future__ import annotations

import math

import pytest
import torch
from pytorch_metric_learning import distances, losses, miners, reducers
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from mdprop.losses import MultiSimilarityLoss
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
    return sum(terms) / max(len(terms), 1)


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
        ([0, 40, -40], [0, 0, 1]),  # a tie of the hardest ones
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


def library_loss(
    embeddings: Tensor, labels: Tensor, mined: tuple[Tensor, ...] | None, margin: float = 0.1
) -> Tensor:
    """pytorch-metric-learning's, on inner products; its own miner where nothing is mined."""
    similarity = distances.DotProductSimilarity(normalize_embeddings=False)
    if mined is None:
        mined = miners.MultiSimilarityMiner(epsilon=margin, distance=similarity)(embeddings, labels)
    loss = losses.MultiSimilarityLoss(
        alpha=2, beta=40, base=0.5, distance=similarity, reducer=reducers.AvgNonZeroReducer()
    )
    return loss(embeddings, labels, mined)


@pytest.mark.parametrize(
    "miner",
    [
        None,
        miners.BatchHardMiner(),  # triplets
        miners.PairMarginMiner(pos_margin=0.6, neg_margin=1.1),  # pairs
        miners.PairMarginMiner(pos_margin=3, neg_margin=1.1),  # no positive
    ],
)
def test_value_and_gradient_equal_the_librarys(miner: miners.BaseMiner | None) -> None:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(9, (40,), generator=generator)
    centres = torch.randn(9, 12, generator=generator)
    points = F.normalize(centres[labels] + torch.randn(40, 12, generator=generator))
    mined = None if miner is None else miner(points, labels)
    own, theirs = points.clone().requires_grad_(True), points.clone().requires_grad_(True)
    value, expected = MultiSimilarityLoss()(own, labels, mined), library_loss(theirs, labels, mined)
    value.backward()
    expected.backward()
    assert value.item() > 0
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    assert_close(own.grad, theirs.grad, rtol=0, atol=1e-5 * float(theirs.grad.abs().max()))


def test_one_mined_triplet_is_one_anchor() -> None:
    """The mean runs over the anchors with pairs, here a single one."""
    points, labels = at_angles([0, 20, 50, 90]), torch.tensor([0, 0, 1, 1])
    triplet = tuple(torch.tensor([row]) for row in (1, 0, 2))
    near, far = math.cos(math.radians(20)), math.cos(math.radians(30))
    pull, push = math.log1p(math.exp(-2 * (near - 0.5))) / 2, math.log1p(math.exp(40 * (far - 0.5))) / 40
    assert MultiSimilarityLoss()(points, labels, triplet).item() == pytest.approx(pull + push)


def test_mined_pairs_that_are_none_give_zero() -> None:
    points = at_angles([0, 10, 90, 100]).requires_grad_(True)
    none = torch.zeros(0, dtype=torch.int64)
    value = MultiSimilarityLoss()(points, torch.tensor([0, 0, 1, 1]), (none, none, none))
    value.backward()
    assert value == 0
    assert torch.equal(points.grad, torch.zeros_like(points))


def test_large_weights_do_not_overflow() -> None:
    points = at_angles([0, 20, 10, 30]).float().requires_grad_(True)
    value = MultiSimilarityLoss(pos_weight=500, neg_weight=900)(points, torch.tensor([0, 0, 1, 1]))
    value.backward()
    assert value.isfinite()
    assert points.grad.isfinite().all()


def test_nothing_waits_for_the_device() -> None:
    """On the meta device there are no values: reading one raises."""
    points = torch.empty(6, 4, device="meta", requires_grad=True)
    labels = torch.empty(6, dtype=torch.int64, device="meta")
    MultiSimilarityLoss()(points, labels).backward()
    MultiSimilarityLoss()(points, labels, (labels, labels, labels, labels)).backward()
    assert points.grad.is_meta


def test_weights_below_one() -> None:
    expected = naive_loss([0, 40, 60, 95], [0, 0, 1, 1], 0.2, 0.3, 0.1, 0.5)
    value = MultiSimilarityLoss(0.2, 0.3)(at_angles([0, 40, 60, 95]), torch.tensor([0, 0, 1, 1]))
    assert value.item() == pytest.approx(expected)


@pytest.mark.parametrize("weights", [(0, 40), (2, 0), (2, -1)])
def test_weights_without_a_meaning(weights: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"^pos_weight = .*, neg_weight = .*: both must be above 0$"):
        MultiSimilarityLoss(*weights)
