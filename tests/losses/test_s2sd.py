from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from mdprop.losses import ArcFaceLoss, MultiSimilarityLoss, S2SDLoss
from tests.helpers import golden


def authors_problem(delay: int = 1000) -> tuple[S2SDLoss, dict[str, Tensor]]:
    """Their numbers, and the loss with their target networks."""
    arrays = {name: torch.as_tensor(array) for name, array in golden("s2sd").items()}
    loss = S2SDLoss(
        arrays["features"].shape[1],
        MultiSimilarityLoss(),
        MultiSimilarityLoss(),
        target_dims=arrays["target_dims"].tolist(),
        temperature=float(arrays["T"]),
        weight=float(arrays["w"]),
        feature_weight=float(arrays["feat_w"]),
        feature_delay=delay,
    )
    weights = {name.replace("__", "."): array for name, array in arrays.items() if "target_nets" in name}
    missing, unexpected = loss.load_state_dict(weights, strict=False)
    assert (missing, unexpected) == (["steps"], [])
    return loss, arrays


def small(delay: int = 1000, **options: float) -> S2SDLoss:
    torch.manual_seed(0)
    return S2SDLoss(5, Spread(), Spread(), target_dims=(3, 7), feature_delay=delay, **options)


class Spread(nn.Module):
    """A loss that is easy to compute by hand: the mean of the first column."""

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return embeddings[:, 0].mean()


def batch(rows: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(rows, 6, generator=generator)
    return embeddings, torch.arange(rows) // 2, torch.randn(rows, 5, 2, 3, generator=generator)


@pytest.mark.filterwarnings("error")  # a softmax over a dimension that PyTorch guesses
def test_losses_and_gradient_equal_the_authors() -> None:
    loss, arrays = authors_problem(delay=1)
    embeddings = arrays["embeddings"].requires_grad_(True)
    call = embeddings, arrays["labels"], arrays["features"]
    assert loss(*call).item() == pytest.approx(float(arrays["loss_before_delay"]), rel=1e-5)
    value = loss(*call)
    assert value.item() == pytest.approx(float(arrays["loss_after_delay"]), rel=1e-5)
    value.backward()
    expected = arrays["grad_after_delay"]
    assert_close(embeddings.grad, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def naive_divergence(embeddings: list[list[float]], teacher: list[list[float]], temperature: float) -> float:
    """Row by row: Σ p log(p / q), p and q being softmaxes of cosine similarities."""

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))

    def row(points: list[list[float]], i: int) -> list[float]:
        exponentials = [math.exp(cosine(points[i], other) / temperature) for other in points]
        return [e / sum(exponentials) for e in exponentials]

    total = 0.0
    for i in range(len(embeddings)):
        total += sum(p * math.log(p / q) for p, q in zip(row(teacher, i), row(embeddings, i), strict=True))
    return temperature**2 * total / len(embeddings)


@pytest.mark.parametrize("temperature", [1.0, 0.3])
@pytest.mark.parametrize("delay", [0, 1])
def test_the_loss_equals_its_definition(temperature: float, delay: int) -> None:
    loss = small(delay, temperature=temperature, weight=2.0, feature_weight=3.0).double()
    embeddings, features = (tensor.double() for tensor in batch()[::2])
    pooled = torch.tensor(
        [
            [sum(channel) / len(channel) + max(channel) for channel in image]
            for image in features.flatten(2).tolist()
        ],
        dtype=torch.float64,
    )
    branches = [net(pooled) for net in loss.target_nets]
    divergences = [naive_divergence(embeddings.tolist(), b.tolist(), temperature) for b in branches]
    expected = F.normalize(embeddings)[:, 0].mean().item() / 2
    expected += sum(F.normalize(b)[:, 0].mean().item() for b in branches) / 4
    expected += 2.0 * sum(divergences) / 2
    if delay == 0:
        expected += 3.0 * naive_divergence(embeddings.tolist(), pooled.tolist(), temperature)
    assert loss(embeddings, batch()[1], features).item() == pytest.approx(expected, rel=1e-6)


def test_teachers_get_no_gradient_from_the_divergence() -> None:
    loss = S2SDLoss(5, Spread(), Zero(), target_dims=(3,), feature_delay=0)
    embeddings, labels, features = batch()
    embeddings.requires_grad_(True)
    features.requires_grad_(True)
    loss(embeddings, labels, features).backward()
    assert embeddings.grad.abs().max() > 0
    assert features.grad.abs().max() == 0
    assert all(parameter.grad.abs().max() == 0 for parameter in loss.target_nets.parameters())


class Zero(nn.Module):
    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return 0 * embeddings.sum()


def test_target_losses_teach_branches_and_features() -> None:
    embeddings, labels, features = batch()
    features.requires_grad_(True)
    loss = small()
    loss(embeddings, labels, features).backward()
    assert features.grad.abs().max() > 0
    assert all(net[0].weight.grad.abs().max() > 0 for net in loss.target_nets)


def test_the_feature_term_starts_after_the_delay() -> None:
    loss, call = small(delay=1000), batch()
    values = [loss(*call).item() for _ in range(1003)]
    assert len(set(values[:1000])) == 1
    assert len(set(values[1000:])) == 1
    assert values[1000] > values[999]


def test_without_delay_the_feature_term_is_there_from_the_first_call() -> None:
    assert small(delay=0)(*batch()) > small(delay=1)(*batch())


def test_only_training_counts_and_the_state_dict_keeps_the_count() -> None:
    call = batch()
    loss = small(delay=2)
    before = loss.eval()(*call)
    for _ in range(5):
        assert loss(*call) == before
    loss.train()
    for _ in range(2):
        loss(*call)
    after = loss(*call)
    assert after > before
    assert loss.eval()(*call) == after
    state = loss.state_dict()
    assert state["steps"].item() == 3
    resumed = small(delay=2)
    resumed.load_state_dict(state)
    assert resumed(*call) == after


def test_each_branch_has_its_loss() -> None:
    embeddings, labels, features = batch()
    dims = (3, 7)
    loss = S2SDLoss(5, Spread(), [ArcFaceLoss(2, dim) for dim in dims], target_dims=dims)
    loss(embeddings, labels, features).backward()
    centres = [(name, p) for name, p in loss.named_parameters() if "class_map" in name]
    assert [(name, p.shape) for name, p in centres] == [
        ("targets.0.class_map", (2, 3)),
        ("targets.1.class_map", (2, 7)),
    ]
    assert all(p.grad.abs().max() > 0 for _, p in centres)
    same = S2SDLoss(5, Spread(), nn.ModuleList([Spread(), Spread()]), target_dims=dims)
    same.load_state_dict(loss.state_dict(), strict=False)
    shared = S2SDLoss(5, Spread(), Spread(), target_dims=dims)
    shared.load_state_dict(loss.state_dict(), strict=False)
    assert same(embeddings, labels, features) == shared(embeddings, labels, features)


def test_nothing_waits_for_the_device() -> None:
    """On the meta device there are no values: reading one raises."""
    loss = S2SDLoss(5, MultiSimilarityLoss(), MultiSimilarityLoss(), target_dims=(3,)).to("meta")
    embeddings, labels, features = (tensor.to("meta") for tensor in batch())
    value = loss(embeddings.requires_grad_(True), labels, features)
    value.backward()
    assert value.is_meta
    with pytest.raises((RuntimeError, NotImplementedError), match=r"(?i)meta"):
        value.item()


def test_the_smallest_settings() -> None:
    """Targets of one dimension, and terms that are switched off."""
    assert small(delay=0, weight=0, feature_weight=0)(*batch()).isfinite()
    loss = S2SDLoss(5, Spread(), Spread(), target_dims=(1,), temperature=0.01)
    assert loss(*batch()).isfinite()
    assert not loss.steps.is_floating_point()


def test_the_defaults_are_the_papers() -> None:
    loss = S2SDLoss(5, Spread(), Spread())
    assert [net[0].out_features for net in loss.target_nets] == [512, 1024, 1536, 2048]
    assert (loss.temperature, loss.weight, loss.feature_weight, loss.feature_delay) == (1, 50, 50, 1000)


def test_settings_without_a_meaning() -> None:
    with pytest.raises(ValueError, match=r"^1 target losses for 2 target_dims$"):
        S2SDLoss(5, Spread(), [Spread()], target_dims=(3, 7))
    for dims in ((), (0,), (2.5,)):
        with pytest.raises(ValueError, match=r"^target_dims = .*: whole numbers above 0 are needed$"):
            S2SDLoss(5, Spread(), Spread(), target_dims=dims)
    with pytest.raises(ValueError, match=r"^temperature = 0: a number above 0 is needed$"):
        S2SDLoss(5, Spread(), Spread(), target_dims=(3,), temperature=0)
    for name in ("weight", "feature_weight", "feature_delay"):
        with pytest.raises(ValueError, match=rf"{name} = -1.*: none may be below 0$"):
            S2SDLoss(5, Spread(), Spread(), target_dims=(3,), **{name: -1})
