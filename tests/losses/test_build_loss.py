"""Losses by name and options, and what a mistake in them says."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from mdprop import losses
from mdprop.errors import ParameterError
from mdprop.losses import ArcFaceLoss, MultiSimilarityLoss, S2SDLoss, _small_batch, build_loss
from mdprop.losses.library import Choice, MinedLoss
from mdprop.losses.options import construct, refusal

SIZES = {"embedding_dim": 8, "num_classes": 4, "feature_dim": 6}
S2SD_SMALL = {"target_dims": [5, 7]}


def refused(message: str, name: str, options: dict[str, Any] | None = None, **miner: Any) -> None:
    with pytest.raises(ParameterError, match=message) as caught:
        build_loss(name, options or {}, **miner, **SIZES)
    assert "\n" not in str(caught.value)


def test_multi_similarity() -> None:
    loss = build_loss("multi_similarity", {"neg_weight": 5, "margin": 0.3}, **SIZES)
    assert isinstance(loss, MultiSimilarityLoss)
    assert (loss.pos_weight, loss.neg_weight, loss.margin, loss.threshold) == (2.0, 5, 0.3, 0.5)
    assert loss.training


def test_arcface() -> None:
    loss = build_loss("arcface", {"margin": 0.3}, **SIZES)
    assert isinstance(loss, ArcFaceLoss)
    assert (loss.margin, loss.scale, loss.class_map.shape) == (0.3, 16.0, (4, 8))


def test_s2sd_defaults() -> None:
    loss = build_loss("s2sd", **SIZES)
    assert isinstance(loss, S2SDLoss)
    assert isinstance(loss.source, MultiSimilarityLoss)
    assert [type(target) for target in loss.targets] == [MultiSimilarityLoss] * 4
    assert [net[0].weight.shape for net in loss.target_nets] == [(d, 6) for d in (512, 1024, 1536, 2048)]
    settings = loss.temperature, loss.weight, loss.feature_weight, loss.feature_delay
    assert settings == (1.0, 50.0, 50.0, 1000)
    assert loss.training
    assert loss.steps == 0


def test_s2sd_of_losses_by_name() -> None:
    options = {
        **S2SD_SMALL,
        "source": "proxy_anchor",
        "source_options": {"alpha": 16},
        "target": "arcface",
        "target_options": {"scale": 8},
        "feature_delay": 7,
    }
    loss = build_loss("s2sd", options, **SIZES)
    assert (loss.source.alpha, loss.feature_delay) == (16, 7)
    assert loss.source.proxies.shape == (4, 8)
    assert [target.class_map.shape for target in loss.targets] == [(4, 5), (4, 7)]
    assert [target.scale for target in loss.targets] == [8, 8]
    embeddings = F.normalize(torch.randn(8, 8)).requires_grad_(True)
    loss(embeddings, torch.arange(8) % 4, torch.randn(8, 6, 3, 3)).backward()
    assert all(parameter.grad.isfinite().all() for parameter in loss.parameters())


def test_a_miner_with_a_loss() -> None:
    loss = build_loss("triplet_margin", miner="distance_weighted", miner_options={"cutoff": 0.6}, **SIZES)
    assert isinstance(loss, MinedLoss)
    assert (loss.miner.cutoff, loss.miner.nonzero_loss_cutoff) == (0.6, 1.4)


def test_a_miner_replaces_that_of_multi_similarity() -> None:
    embeddings = F.normalize(torch.randn(12, 8, generator=torch.Generator().manual_seed(0)))
    labels = torch.arange(12) % 4
    own = build_loss("multi_similarity", {"margin": 0.2}, **SIZES)(embeddings, labels)
    same = build_loss("multi_similarity", miner="multi_similarity", miner_options={"epsilon": 0.2}, **SIZES)(
        embeddings, labels
    )
    other = build_loss("multi_similarity", miner="batch_hard", **SIZES)(embeddings, labels)
    assert own.item() == pytest.approx(same.item(), rel=1e-6)
    assert other.item() != pytest.approx(own.item(), rel=1e-3)


def test_a_miner_with_s2sd_serves_the_parts_that_take_one() -> None:
    both = build_loss("s2sd", S2SD_SMALL, miner="batch_hard", **SIZES)
    assert [type(part) for part in (both.source, *both.targets)] == [MinedLoss] * 3
    source = build_loss("s2sd", {**S2SD_SMALL, "target": "arcface"}, miner="batch_hard", **SIZES)
    assert [type(part) for part in (source.source, *source.targets)] == [MinedLoss, ArcFaceLoss, ArcFaceLoss]
    refused(r"^loss\.miner: arcface takes no miner; ", "s2sd", {"source": "arcface"}, miner="batch_hard")


def test_building_leaves_random_numbers_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    build_loss("triplet_margin", miner="distance_weighted", **SIZES)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("num_classes", [1, 2, 4])
@pytest.mark.parametrize("embedding_dim", [1, 2, 64])
def test_small_problems_are_built(num_classes: int, embedding_dim: int) -> None:
    for name in ("multi_similarity", "arcface", "triplet_margin", "proxy_anchor"):
        build_loss(name, embedding_dim=embedding_dim, num_classes=num_classes, feature_dim=3)


def test_unknown_names() -> None:
    refused(
        r"^loss\.name: unknown loss 'multisimilarity'; known: multi_similarity, arcface, s2sd, .*margin",
        "multisimilarity",
    )
    refused(
        r"^loss\.miner: unknown miner 'hard'; known: .*batch_hard, distance_weighted", "margin", miner="hard"
    )
    refused(r"^loss\.options\.source: unknown loss 'ms'; known: ", "s2sd", {"source": "ms"})
    refused(r"^loss\.options\.target: unknown loss 'ms'; known: ", "s2sd", {"target": "ms"})
    refused(r"^loss\.options\.target: s2sd cannot be a part of s2sd$", "s2sd", {"target": "s2sd"})


def test_unknown_and_missing_options() -> None:
    refused(
        r"^loss\.options: multi_similarity has no option 'margn'; "
        r"it has: pos_weight=2\.0, neg_weight=40\.0, margin=0\.1, threshold=0\.5$",
        "multi_similarity",
        {"margn": 0.1},
    )
    refused(
        r"^loss\.options: margin has no option 'margn'; it has: margin=0\.2, nu=0, beta=1\.2, ",
        "margin",
        {"margn": 1},
    )
    refused(
        r"^loss\.options: arcface has no option 'num_classes'; it has: margin=0\.5, scale=16\.0$",
        "arcface",
        {"num_classes": 3},
    )
    refused(r"^loss\.options: n_pairs has no option 'a'; it has none$", "n_pairs", {"a": 1})
    refused(
        r"^loss\.options: ranked_list needs Tn; it has: margin \(needed\), Tn \(needed\), ",
        "ranked_list",
        {"margin": 1},
    )
    refused(
        r"^loss\.options\.source_options: arcface has no option 'a'; ",
        "s2sd",
        {"source": "arcface", "source_options": {"a": 1}},
    )
    refused(
        r"^loss\.miner_options: hdc has no option 'a'; it has: filter_percentage=0\.5$",
        "margin",
        miner="hdc",
        miner_options={"a": 1},
    )


@pytest.mark.parametrize("value", ["0.1", None, True, [0.1], {"a": 1}])
def test_a_number_is_needed(value: object) -> None:
    refused(
        r"^loss\.options\.margin = .*: a number is needed; it has: pos_weight",
        "multi_similarity",
        {"margin": value},
    )


@pytest.mark.parametrize(
    ("name", "option", "value", "needed"),
    [
        ("margin", "learn_beta", 1, "true or false"),
        ("margin", "triplets_per_anchor", "some", "a number or all"),
        ("pnp", "variant", 3, "a string"),
        ("ranked_list", "alpha", "x", "a number, a list of numbers or null"),
        ("s2sd", "target_dims", 512, "a list of numbers"),
        ("s2sd", "target_dims", "512", "a list of numbers"),
        ("s2sd", "source_options", [1], "a mapping of options"),
        ("s2sd", "source", 3, "a string"),
    ],
)
def test_values_of_the_wrong_type(name: str, option: str, value: object, needed: str) -> None:
    refused(rf"^loss\.options\.{option} = .*: {needed} is needed; it has: ", name, {option: value})


def test_a_margin_for_each_class_only_where_it_is_learnt() -> None:
    assert build_loss("margin", **SIZES).beta.shape == (1,)
    assert build_loss("margin", {"learn_beta": True}, **SIZES).beta.shape == (4,)


@pytest.mark.parametrize("value", [None, 2, 0.5, [1, 0.5]])
def test_where_the_default_is_null_numbers_will_do(value: object) -> None:
    choice = Choice(lambda size=None: MultiSimilarityLoss())
    assert isinstance(construct("key", "name", choice, {"size": value}, {}), MultiSimilarityLoss)
    for wrong in ("2", True, ["2"], math.nan):
        with pytest.raises(ParameterError, match=r": a number, a list of numbers or null is needed; "):
            construct("key", "name", choice, {"size": wrong}, {})


def test_a_reason_is_short_and_never_nothing() -> None:
    assert str(refusal("key", "name", {}, ValueError())) == "key: name refuses its defaults: ValueError"
    words = ["x" * 80, "y" * 80]  # 161 characters
    assert str(refusal("key", "name", {}, ValueError(" ".join(words)))).endswith(f": {words[0]} [...]")
    short = "x" * 80 + " " + "y" * 79
    assert str(refusal("key", "name", {}, ValueError(short))).endswith(short)


def test_options_are_tried_on_two_images_of_each_of_up_to_four_classes() -> None:
    for classes, expected in ((2, [0, 0, 1, 1]), (9, [0, 0, 1, 1, 2, 2, 3, 3])):
        embeddings, labels = _small_batch(5, classes)
        assert (labels.tolist(), embeddings.shape) == (expected, (len(expected), 5))
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(len(expected)))


def test_values_that_the_loss_refuses() -> None:
    refused(r"^loss\.options: arcface refuses margin=28\.6: .*radians", "arcface", {"margin": 28.6})
    refused(r": arcface refuses margin=4, scale=2: .*radians", "arcface", {"margin": 4, "scale": 2})
    refused(r"^loss\.options: pnp refuses variant='X': .*must be one of", "pnp", {"variant": "X"})
    refused(
        r"^loss\.options: nt_xent refuses temperature=0: the loss of a small batch is nan$",
        "nt_xent",
        {"temperature": 0},
    )
    refused(
        r"^loss\.options: s2sd refuses target_dims=\[2\.5\]: .*whole numbers", "s2sd", {"target_dims": [2.5]}
    )
    refused(
        r"^loss\.options: soft_triple refuses centers_per_class=1\.5: ",
        "soft_triple",
        {"centers_per_class": 1.5},
    )
    refused(
        r"^loss\.miner_options: batch_easy_hard refuses pos_strategy='x': pos_strategy must be one of",
        "margin",
        miner="batch_easy_hard",
        miner_options={"pos_strategy": "x"},
    )
    refused(
        r"^loss\.miner_options: hdc refuses filter_percentage=3: ",
        "margin",
        miner="hdc",
        miner_options={"filter_percentage": 3},
    )
    refused(
        r"^loss\.miner_options\.type_of_triplets = 'x': all or hard or semihard or easy is needed; ",
        "margin",
        miner="triplet_margin",
        miner_options={"type_of_triplets": "x"},
    )


@pytest.mark.parametrize("name", ["arcface", "proxy_anchor", "fast_ap"])
def test_losses_without_pairs_take_no_miner(name: str) -> None:
    refused(
        rf"^loss\.miner: {name} takes no miner; those that do: multi_similarity, s2sd, ", name, miner="hdc"
    )


def test_miner_options_without_a_miner() -> None:
    refused(
        r"^loss\.miner_options are set and loss\.miner is null; name a miner$",
        "margin",
        miner_options={"cutoff": 1},
    )


@pytest.mark.parametrize("value", [1e6, -1e30, 1e300, 10**9, 10**400])
@pytest.mark.parametrize(
    ("name", "option"),
    [("multi_similarity", "margin"), ("fast_ap", "num_bins"), ("large_margin_softmax", "margin")],
)
def test_numbers_beyond_all_sense_are_refused_before_they_take_time(
    name: str, option: str, value: float
) -> None:
    refused(
        rf"^loss\.options\.{option} = .*: a number of at most 100,000 in size is needed",
        name,
        {option: value},
    )


def test_a_gradient_that_is_not_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    class Rooted(torch.nn.Module):
        def forward(self, embeddings: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            return (0 * embeddings).sum().sqrt()

    monkeypatch.setitem(losses.LOSSES, "rooted", Choice(Rooted))
    refused(
        r"^loss\.options: rooted refuses its defaults: the gradient of a small batch is not finite", "rooted"
    )
