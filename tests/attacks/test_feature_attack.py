from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from mdprop.attacks import Bound, TargetKind, choose_targets, feature_attack, target_rows
from tests.helpers import golden


class TinyNetwork(nn.Module):
    """The network of the authors' reference attacks."""

    def __init__(self, conv: Tensor, linear: Tensor) -> None:
        super().__init__()
        self.conv, self.linear = nn.Parameter(conv), nn.Parameter(linear)

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(torch.tanh(F.conv2d(x, self.conv)), 6).flatten(1)
        return F.normalize(F.linear(x, self.linear), dim=-1)


def tiny_network(seed: int = 0) -> TinyNetwork:
    generator = torch.Generator().manual_seed(seed)
    conv = torch.randn(4, 3, 3, 3, generator=generator)
    return TinyNetwork(conv, torch.randn(5, 4 * 36, generator=generator))


def pixels(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def distance(embed: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """The mean distance of each image to its targets: [B]."""
    with torch.no_grad():
        return torch.linalg.vector_norm(embed(images) - targets, dim=-1).mean(0)


# --- the authors' numbers ---


@pytest.mark.parametrize("case", ["single", "multi", "multi_steps", "untargeted"])
def test_attacks_equal_the_authors(case: str) -> None:
    arrays = golden("attack")
    embed = TinyNetwork(*(torch.from_numpy(arrays[key]) for key in ("conv_weight", "linear_weight")))
    images = torch.from_numpy(arrays["x"])
    perms = torch.from_numpy(arrays[f"{case}__perms"])
    adversarial = feature_attack(
        embed,
        images,
        embed(images).detach()[perms],
        epsilon=float(arrays[f"{case}__epsilon"]),
        steps=int(arrays[f"{case}__steps"]),
        lower=images.min(),
        upper=images.max(),
        start=torch.from_numpy(arrays[f"{case}__noise"]),
        away=bool(arrays[f"{case}__away"]),
    )
    differs = (adversarial - torch.from_numpy(arrays[f"{case}__adv"])).abs() > 1e-6
    if case == "single":
        # The permutation maps images 2 and 4 to themselves. The start noise takes them 4e-4 from
        # their target, so the direction of that difference, and with it the sign of a gradient
        # near 0, hangs on the embedding's last bits: a pixel or two may step the other way.
        assert [i for i in range(10) if perms[0, i] == i] == [2, 4]
        assert (differs[[2, 4]].sum((1, 2, 3)) <= 2).all()
        differs[[2, 4]] = False
    assert not differs.any()


# --- the attack ---


@given(
    epsilon=st.floats(0, 0.3),
    steps=st.integers(0, 3),
    noise=st.floats(0, 0.5),
    bounds=st.sampled_from([(0.0, 1.0), (0.1, 0.9)]),
    away=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=40)
def test_the_result_is_in_the_ball_and_in_range(
    epsilon: float, steps: int, noise: float, bounds: tuple[float, float], away: bool, seed: int
) -> None:
    embed = tiny_network()
    lower, upper = bounds
    images = pixels(3, seed) * (upper - lower) + lower
    start = (2 * torch.rand_like(images) - 1) * noise
    targets = embed(pixels(3, seed + 1)).detach()[None]
    adversarial = feature_attack(
        embed,
        images,
        targets,
        epsilon=epsilon,
        steps=steps,
        step_size=0.1,
        lower=lower,
        upper=upper,
        start=start,
        away=away,
    )
    assert adversarial.shape == images.shape
    assert (adversarial - images).abs().max() <= epsilon + 1e-6
    assert adversarial.min() >= lower
    assert adversarial.max() <= upper


@pytest.mark.parametrize("per_channel", [False, True])
def test_epsilon_zero_changes_nothing(per_channel: bool) -> None:
    embed, images = tiny_network(), pixels(3)
    epsilon: Bound = torch.zeros(3, 1, 1) if per_channel else 0.0
    options = {"steps": 3, "step_size": 0.1, "lower": 0.0, "upper": 1.0, "start": torch.rand_like(images)}
    targets = embed(images).detach().flip(0)[None]
    assert torch.equal(feature_attack(embed, images, targets, epsilon=epsilon, **options), images)


def test_each_channel_has_its_own_ball() -> None:
    embed, images = tiny_network(), 0.4 + 0.2 * pixels(4)
    epsilon = torch.tensor([0.0, 0.02, 0.1]).view(3, 1, 1)
    targets = embed(pixels(4, seed=9)).detach()[None]
    adversarial = feature_attack(embed, images, targets, epsilon=epsilon, steps=2, lower=0.0, upper=1.0)
    moved = (adversarial - images).abs().amax((0, 2, 3))
    assert_close(moved, epsilon.flatten(), atol=1e-6, rtol=0)


def test_each_channel_has_its_own_range() -> None:
    embed, images = tiny_network(), pixels(4)
    lower, upper = torch.tensor([0.0, 0.2, 0.4]).view(3, 1, 1), torch.tensor([1.0, 0.8, 0.6]).view(3, 1, 1)
    images = images.clamp(lower, upper)
    targets = embed(pixels(4, seed=9)).detach()[None]
    adversarial = feature_attack(embed, images, targets, epsilon=1.0, steps=1, lower=lower, upper=upper)
    # One step of size 1 leads every pixel with a gradient to an end of its channel's range.
    at_an_end = torch.minimum((adversarial - lower).abs(), (adversarial - upper).abs()) < 1e-6
    assert at_an_end.float().mean() > 0.99
    assert (adversarial >= lower - 1e-6).all()
    assert (adversarial <= upper + 1e-6).all()


def test_without_steps_only_the_start_noise_is_added_and_projected() -> None:
    embed, images = tiny_network(), pixels(3)
    targets = embed(images).detach()[None]
    options = {"epsilon": 0.05, "steps": 0, "lower": 0.0, "upper": 1.0}
    assert torch.equal(feature_attack(embed, images, targets, **options), images)
    noise = 0.2 * (torch.rand_like(images) - 0.5)
    expected = (images + noise.clamp(-0.05, 0.05)).clamp(0, 1)
    assert_close(feature_attack(embed, images, targets, start=noise, **options), expected)


@pytest.mark.parametrize("away", [False, True])
def test_a_step_follows_the_sign_of_the_gradient(away: bool) -> None:
    def embed(x: Tensor) -> Tensor:
        return x.flatten(1)

    images, target = pixels(2), pixels(2, seed=5)
    adversarial = feature_attack(
        embed, images, embed(target)[None], epsilon=0.1, steps=1, lower=0.0, upper=1.0, away=away
    )
    towards = 0.1 * (target - images).sign()
    assert_close(adversarial, (images - towards if away else images + towards).clamp(0, 1))


def test_the_step_size_is_a_share_of_epsilon_by_default() -> None:
    embed, images = tiny_network(), 0.4 + 0.2 * pixels(3)
    targets = embed(pixels(3, seed=9)).detach()[None]
    options = {"epsilon": 0.08, "steps": 4, "lower": 0.0, "upper": 1.0}
    default = feature_attack(embed, images, targets, **options)
    assert torch.equal(default, feature_attack(embed, images, targets, step_size=0.02, **options))
    assert (default - images).abs().max() == pytest.approx(0.08, abs=1e-6)


def test_several_targets_pull_by_the_mean_of_their_distances() -> None:
    embed, images = tiny_network(), pixels(4)
    targets = embed(pixels(12, seed=3)).detach().view(3, 4, -1)
    adversarial = feature_attack(embed, images, targets, epsilon=0.05, steps=1, lower=-9.0, upper=9.0)
    x = images.clone().requires_grad_(True)
    total = sum(torch.linalg.vector_norm(embed(x) - target, dim=-1).sum() for target in targets)
    total.backward()
    assert_close(adversarial, images - 0.05 * x.grad.sign())


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("count", [1, 3])
def test_towards_shortens_the_distance_and_away_lengthens_it(steps: int, count: int) -> None:
    embed, images = tiny_network(), pixels(6)
    targets = choose_targets(embed(images), torch.arange(6), count, "other_class")
    options = {"epsilon": 0.03, "steps": steps, "lower": 0.0, "upper": 1.0}
    before = distance(embed, images, targets)
    nearer = feature_attack(embed, images, targets, **options)
    further = feature_attack(embed, images, targets, away=True, **options)
    assert (distance(embed, nearer, targets) < before).all()
    assert (distance(embed, further, targets) > before).all()


def test_images_that_are_at_their_target_stay_finite() -> None:
    embed, images = tiny_network(), pixels(3)
    targets = embed(images).detach()[None]
    adversarial = feature_attack(
        embed, images, targets, epsilon=0.1, steps=3, lower=0.0, upper=1.0, away=True
    )
    assert adversarial.isfinite().all()


@pytest.mark.parametrize("grad", [True, False])
def test_the_attack_leaves_images_and_weights_alone(grad: bool) -> None:
    embed, images = tiny_network(), pixels(3)
    before, weights = images.clone(), [p.detach().clone() for p in embed.parameters()]
    with torch.set_grad_enabled(grad):
        adversarial = feature_attack(
            embed, images, embed(images).flip(0)[None], epsilon=0.1, steps=2, lower=0.0, upper=1.0
        )
        assert torch.is_grad_enabled() is grad
    assert torch.equal(images, before)
    assert not images.requires_grad
    assert not adversarial.requires_grad
    assert not torch.equal(adversarial, images)
    for parameter, value in zip(embed.parameters(), weights, strict=True):
        assert parameter.grad is None
        assert parameter.requires_grad
        assert torch.equal(parameter, value)


def test_targets_of_the_embeddings_at_the_start() -> None:
    embed, images = tiny_network(), pixels(4)
    start = (2 * torch.rand_like(images) - 1) * 0.05
    given: list[Tensor] = []

    def mirrored(embeddings: Tensor) -> Tensor:
        given.append(embeddings)
        return embeddings.flip(0)[None]

    bounds = {"epsilon": 0.1, "steps": 3, "lower": 0.0, "upper": 1.0, "start": start}
    found = feature_attack(embed, images, mirrored, **bounds)
    (at_start,) = given  # asked once
    assert not at_start.requires_grad
    assert_close(at_start, embed(images + start).detach())
    assert torch.equal(found, feature_attack(embed, images, at_start.flip(0)[None], **bounds))
    with pytest.raises(ValueError, match=r"^targets must be \[T, 4, D\], not \[4, 5\]$"):
        feature_attack(embed, images, lambda embeddings: embeddings, **bounds)


@pytest.mark.parametrize("shape", [(3, 5), (1, 2, 5)])
def test_targets_of_another_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(
        ValueError, match=rf"^targets must be \[T, 3, D\], not \[{', '.join(map(str, shape))}\]$"
    ):
        feature_attack(
            tiny_network(), pixels(3), torch.zeros(shape), epsilon=0.1, steps=1, lower=0.0, upper=1.0
        )


# --- the targets ---

labelled = st.lists(st.integers(0, 5), min_size=1, max_size=25).map(torch.tensor)
counts = st.integers(1, 4)
seeds = st.integers(0, 2**32 - 1)


def drawn(labels: Tensor, queries: Tensor, count: int, kind: TargetKind, seed: int) -> Tensor:
    return target_rows(labels, queries, count, kind, torch.Generator().manual_seed(seed))


@given(labelled, counts, seeds, st.data())
def test_targets_of_other_classes(labels: Tensor, count: int, seed: int, data: st.DataObject) -> None:
    assume(len(labels.unique()) > 1)
    rows = st.integers(0, len(labels) - 1)
    queries = torch.tensor(data.draw(st.lists(rows, min_size=1, max_size=9)))
    targets = drawn(labels, queries, count, "other_class", seed)
    assert targets.shape == (count, len(queries))
    assert (labels[targets] != labels[queries]).all()
    for query, column in zip(queries, targets.T, strict=True):
        others = int((labels != labels[query]).sum())
        assert len(column.unique()) == count or others < count
    assert torch.equal(targets, drawn(labels, queries, count, "other_class", seed))


@given(labelled, counts, seeds)
def test_targets_of_the_same_class(labels: Tensor, count: int, seed: int) -> None:
    queries = torch.arange(len(labels))
    targets = drawn(labels, queries, count, "same_class", seed)
    assert (labels[targets] == labels).all()
    for query, column in zip(queries, targets.T, strict=True):
        others = int((labels == labels[query]).sum()) - 1
        assert (query in column) == (others == 0)
        assert len(column.unique()) == count or others < count
    assert torch.equal(targets, drawn(labels, queries, count, "same_class", seed))


@given(labelled, counts, seeds)
def test_the_authors_targets_are_permutations(labels: Tensor, count: int, seed: int) -> None:
    targets = drawn(labels, torch.arange(len(labels)), count, "any", seed)
    assert targets.shape == (count, len(labels))
    assert (targets.sort(1).values == torch.arange(len(labels))).all()
    assert torch.equal(targets, drawn(labels, torch.arange(len(labels)), count, "any", seed))


@pytest.mark.parametrize("kind", ["other_class", "same_class", "any"])
@pytest.mark.parametrize("count", [1, 2])
def test_targets_are_drawn_evenly(kind: TargetKind, count: int) -> None:
    labels = torch.tensor([3, 0, 0, 3, 7, 0, 3, 3, 7, 0])
    generator = torch.Generator().manual_seed(0)
    if kind == "any":
        draws = target_rows(labels, torch.arange(10), 2000 * count, kind, generator)
    else:
        draws = target_rows(labels, torch.arange(10).repeat(2000), count, kind, generator).view(-1, 10)
    for query in range(10):
        same = labels == labels[query]
        same[query] = False
        allowed = {"other_class": labels != labels[query], "same_class": same, "any": labels > -1}[kind]
        seen = Counter(draws[:, query].tolist())
        assert sorted(seen) == allowed.nonzero().flatten().tolist()
        expected = len(draws) / len(seen)
        chi_square = sum((n - expected) ** 2 / expected for n in seen.values())
        assert chi_square < 30  # at most 9 degrees of freedom: p below 0.0005


@pytest.mark.parametrize("kind", ["other_class", "same_class", "any"])
def test_another_generator_draws_other_targets(kind: TargetKind) -> None:
    labels = torch.arange(20) // 5
    first, second = (drawn(labels, torch.arange(20), 2, kind, seed) for seed in (0, 1))
    assert not torch.equal(first, second)


def test_targets_are_the_detached_embeddings_of_the_rows() -> None:
    embeddings = torch.randn(8, 4, requires_grad=True)
    labels = torch.arange(8) // 2
    targets = choose_targets(embeddings, labels, 3, "other_class", torch.Generator().manual_seed(1))
    rows = drawn(labels, torch.arange(8), 3, "other_class", 1)
    assert targets.shape == (3, 8, 4)
    assert not targets.requires_grad
    assert torch.equal(targets, embeddings.detach()[rows])


def test_targets_that_cannot_be_chosen() -> None:
    rows = torch.arange(4)
    with pytest.raises(ValueError, match="all rows are of one class"):
        target_rows(torch.zeros(4).long(), rows, 1, "other_class")
    with pytest.raises(ValueError, match="count must be 1 or more, not 0"):
        target_rows(rows, rows, 0, "other_class")
    with pytest.raises(ValueError, match="queries must be all of them"):
        target_rows(rows, rows[:2], 1, "any")
    with pytest.raises(ValueError, match="unknown target kind 'own'; known: other_class, same_class, any"):
        target_rows(rows, rows, 1, "own")  # type: ignore[arg-type]


def test_as_many_targets_as_there_are_candidates():
    labels = torch.arange(16).repeat_interleave(2)
    rows = target_rows(labels, torch.arange(32), 30, "other_class", torch.Generator().manual_seed(0))
    for query in range(32):
        others = set(range(32)) - {query, query ^ 1}
        assert set(rows[:, query].tolist()) == others
