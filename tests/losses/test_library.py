"""The library's losses and miners by name."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from pytorch_metric_learning import losses, miners
from pytorch_metric_learning.utils import loss_and_miner_utils
from torch import Tensor
from torch.nn import functional as F

from mdprop.losses import LOSSES, MINERS, build_loss
from mdprop.losses.library import CLASS_LOSSES, PAIR_LOSSES
from mdprop.losses.options import NEEDED, options_of
from tests.helpers import golden

pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # the library's

SIZES = {"embedding_dim": 8, "num_classes": 4, "feature_dim": 6}
NEEDED_OPTIONS = {"ranked_list": {"margin": 0.4, "Tn": 1}}
MINED = [name for name, choice in PAIR_LOSSES.items() if choice.mined]


def batch() -> tuple[Tensor, Tensor]:
    """16 embeddings of 4 classes, in no order."""
    generator = torch.Generator().manual_seed(0)
    embeddings = F.normalize(torch.randn(16, 8, generator=generator))
    labels = torch.arange(4).repeat(4)[torch.randperm(16, generator=generator)]
    return embeddings.requires_grad_(True), labels


def check_learns(loss: torch.nn.Module) -> float:
    """Forward and backward on a batch; the loss goes down along its gradient."""
    embeddings, labels = batch()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        value = loss(embeddings, labels)
    value.backward()
    assert value.shape == ()
    assert value.isfinite()
    assert embeddings.grad.isfinite().all()
    assert embeddings.grad.abs().max() > 0
    for parameter in loss.parameters():
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().max() > 0
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        step = 1e-3 / embeddings.grad.norm()
        assert loss(embeddings - step * embeddings.grad, labels) < value
    return value.item()


@pytest.mark.parametrize("name", [*PAIR_LOSSES, *CLASS_LOSSES])
def test_each_loss_runs_and_learns(name: str) -> None:
    torch.manual_seed(0)
    check_learns(build_loss(name, NEEDED_OPTIONS.get(name, {}), **SIZES))


@pytest.mark.parametrize("miner", MINERS)
@pytest.mark.parametrize("name", ["multi_similarity", *MINED])
def test_each_loss_that_takes_a_miner_runs_with_each(name: str, miner: str) -> None:
    embeddings, labels = batch()
    value = build_loss(name, miner=miner, **SIZES)(embeddings, labels)
    value.backward()
    assert value.isfinite()
    assert embeddings.grad.isfinite().all()


@pytest.mark.parametrize("name", [name for name in MINED if name != "n_pairs"])
def test_a_miner_changes_the_loss(name: str) -> None:
    """n_pairs keeps one positive a class anyway, which may be the same."""
    embeddings, labels = batch()
    mined = build_loss(name, miner="batch_hard", **SIZES)(embeddings, labels)
    assert mined != build_loss(name, **SIZES)(embeddings, labels)


@pytest.mark.parametrize("name", MINED)
def test_the_loss_is_over_what_the_miner_picks(name: str) -> None:
    embeddings, labels = batch()
    mined = miners.PairMarginMiner(pos_margin=0.9, neg_margin=1.1)(embeddings, labels)
    assert 0 < len(mined[2]) < 192
    options = {"pos_margin": 0.9, "neg_margin": 1.1}
    value = build_loss(name, miner="pair_margin", miner_options=options, **SIZES)(embeddings, labels)
    assert value == build_loss(name, **SIZES)(embeddings, labels, mined)


def test_class_losses_have_a_centre_for_each_class() -> None:
    for name in CLASS_LOSSES:
        sizes = [tuple(p.shape) for p in build_loss(name, **{**SIZES, "num_classes": 5}).parameters()]
        assert len(sizes) == 1, name
        assert 8 in sizes[0], name
        assert any(size % 5 == 0 for size in sizes[0]), name


def test_margin_learns_a_beta_for_each_class_or_keeps_one() -> None:
    assert list(build_loss("margin", **SIZES).parameters()) == []
    learnt = build_loss("margin", {"learn_beta": True, "nu": 0.1}, **SIZES)
    assert [p.shape for p in learnt.parameters()] == [(4,)]
    check_learns(learnt)


def test_options_reach_the_library() -> None:
    embeddings, labels = batch()
    built = build_loss("triplet_margin", {"margin": 0.3, "swap": True}, **SIZES)
    assert built(embeddings, labels) == losses.TripletMarginLoss(margin=0.3, swap=True)(embeddings, labels)
    scaled = build_loss("proxy_nca", {"softmax_scale": 3}, **SIZES)
    assert scaled.softmax_scale == 3


def test_options_are_what_a_file_can_hold() -> None:
    for table in (LOSSES, MINERS):
        for name, choice in table.items():
            for option, default in options_of(choice).items():
                assert option not in {"num_classes", "embedding_size", "descriptors_dim"}, name
                kinds = (bool, int, float, str, tuple, Mapping)
                assert default is NEEDED or default is None or isinstance(default, kinds), (name, option)


def drawn(embeddings: Tensor, labels: Tensor, options: dict[str, float], patch: pytest.MonkeyPatch) -> Tensor:
    """The probabilities [B, B] by which distance-weighted mining draws negatives."""
    seen: list[Tensor] = []
    original = loss_and_miner_utils.get_random_triplet_indices

    def record(*args: object, weights: Tensor, **kwargs: object) -> object:
        seen.append(weights)
        return original(*args, weights=weights, **kwargs)

    patch.setattr(loss_and_miner_utils, "get_random_triplet_indices", record)
    sizes = {**SIZES, "embedding_dim": embeddings.shape[1], "num_classes": 10}
    loss = build_loss("triplet_margin", miner="distance_weighted", miner_options=options, **sizes)
    seen.clear()
    loss(embeddings, labels)
    assert len(seen) == 1
    return seen[0]


def test_distance_weighted_probabilities_equal_the_authors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Theirs knows the lower cutoff only."""
    arrays = golden("distance_weighted")
    embeddings, labels = torch.from_numpy(arrays["embeddings"]), torch.from_numpy(arrays["labels"])
    options = {"cutoff": float(arrays["lower_cutoff"]), "nonzero_loss_cutoff": 3.0}
    ours = drawn(embeddings, labels, options, monkeypatch).numpy()
    np.testing.assert_allclose(ours, arrays["probabilities"], rtol=1e-5, atol=1e-9)


def test_distance_weighted_cutoffs(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default none is drawn beyond 1.4; those nearer than the lower cutoff are drawn alike."""
    arrays = golden("distance_weighted")
    embeddings, labels = torch.from_numpy(arrays["embeddings"]), torch.from_numpy(arrays["labels"])
    distances = torch.cdist(embeddings, embeddings)
    negative = labels[:, None] != labels
    default = drawn(embeddings, labels, {}, monkeypatch)
    assert (negative & (distances > 1.4)).any()
    assert (default[negative & (distances > 1.4)] == 0).all()
    assert (default[negative & (distances < 1.4)] > 0).all()
    weights = drawn(embeddings, labels, {"cutoff": 1.2}, monkeypatch)
    near = negative & (distances < 1.2)
    assert (near.sum(1) > 1).any()
    for row, members in zip(weights, near, strict=True):
        assert torch.allclose(row[members], row[members].mean())
