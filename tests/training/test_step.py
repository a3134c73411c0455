from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from mdprop.attacks import TargetKind, choose_targets, target_rows
from mdprop.config.attacks import AttackSettings
from mdprop.layers import MultiBatchNorm2d, extract_branch, multi_batchnorms, route
from mdprop.losses import MultiSimilarityLoss, S2SDLoss
from mdprop.methods import METHODS, Method
from mdprop.models import Embedder
from mdprop.parallel.rows import batch_rows
from mdprop.training import make_examples, training_step
from tests.helpers import attack_settings, make_method, small_embedder

LABELS = torch.arange(6).repeat_interleave(2)
ATTACK = attack_settings()
SEED = 4

# Per adversarial distribution of a batch of 12: the branch, the rows, the targets and their kind.
Slices = list[tuple[str, range, int, TargetKind | None]]
BATCHES: dict[str, Slices] = {
    "at": [("clean", range(12), 1, None)],
    "advprop": [("single_target", range(12), 1, None)],
    "mdprop": [("single_target", range(6), 1, None), ("multi_target", range(6, 12), 3, None)],
    "mdprop_unadv": [
        ("single_target", range(4), 1, None),
        ("multi_target", range(4, 8), 3, None),
        ("unadversarial", range(8, 12), 1, "same_class"),
    ],
}


def batch() -> Tensor:
    return torch.rand(12, 1, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def model_for(method: Method) -> Embedder:
    """A network in float64, so that rounding does not decide the sign of a gradient."""
    return small_embedder(method.branches).double().train()


def examples(
    model: Embedder,
    method: Method,
    images: Tensor,
    labels: Tensor,
    attack: AttackSettings,
    draws: torch.Generator,
) -> tuple[Tensor, Tensor]:
    return make_examples(model, images, labels, batch_rows(method, len(images)), attack, draws)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(SEED)


def restated_attack(model: Embedder, slices: Slices, images: Tensor, attack: AttackSettings) -> Tensor:
    """The attacks of the paper, one slice after the other, each by a network with one branch alone."""
    draws = generator()
    unit = 1.0 if attack.rule("units") == "pixel" else float(model.std)
    epsilon, start_noise = attack.epsilon * unit, attack.start_noise * unit
    networks = [extract_branch(model, branch).eval() for branch, _, _, _ in slices]
    aims = []
    for network, (_, rows, count, kind) in zip(networks, slices, strict=True):
        embeddings = network(images[list(rows)]).detach()
        aims.append(
            choose_targets(embeddings, LABELS[list(rows)], count, kind or attack.rule("target_kind"), draws)
        )
    shape = (sum(len(rows) for _, rows, _, _ in slices), *images.shape[1:])
    noise = (2 * torch.rand(shape, generator=draws) - 1).double() * start_noise
    attacked, start = [], 0
    for network, targets, (_, rows, count, _) in zip(networks, aims, slices, strict=True):
        clean = images[list(rows)]
        low, high = clean - epsilon, clean + epsilon
        x = clean + noise[start : start + len(rows)]
        start += len(rows)
        for _ in range(attack.steps):
            x.requires_grad_(True)
            out = network(x)
            distances = [(out[i] - targets[t, i]).norm() for t in range(count) for i in range(len(x))]
            (gradient,) = torch.autograd.grad((sum(distances) / len(distances)) ** 2, x)
            x = x.detach() - epsilon / attack.steps * gradient.sign()
            x = torch.minimum(torch.maximum(x, low), high).clamp(0, 1)
        attacked.append(x)
    return torch.cat(attacked)


def restated_loss(
    model: Embedder,
    slices: Slices,
    images: Tensor,
    attacked: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Tensor, dict[str, nn.Module]]:
    """One loss over the embeddings of all slices, and the networks with one branch each."""
    batches = {"clean": [images]}
    labels, start = [LABELS], 0
    for branch, rows, _, _ in slices:
        batches.setdefault(branch, []).append(attacked[start : start + len(rows)])
        labels.append(LABELS[list(rows)])
        start += len(rows)
    networks = {branch: extract_branch(model, branch).train() for branch in batches}
    embeddings = [networks[branch](torch.cat(parts)) for branch, parts in batches.items()]
    return loss(torch.cat(embeddings), torch.cat(labels)), networks


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize(
    "attack",
    [
        ATTACK,
        attack_settings(target_kind="any", epsilon=0.1, steps=3, start_noise=0.03),
        attack_settings(units="normalized", epsilon=0.08, steps=2, start_noise=0.4),
    ],
    ids=["one step", "the authors' targets", "a radius a channel"],
)
def test_a_step_equals_its_restatement(name: str, attack: AttackSettings) -> None:
    method, images, loss = METHODS[name], batch(), MultiSimilarityLoss()
    model = model_for(method)
    expected = restated_attack(model, BATCHES[name], images, attack)
    model.eval()
    attacked, labels = examples(model, method, images, LABELS, attack, generator())
    assert_close(attacked, expected, rtol=0, atol=1e-12)
    assert labels.tolist() == LABELS.tolist()
    assert not torch.equal(attacked, images)

    expected_loss, networks = restated_loss(model, BATCHES[name], images, expected, loss)
    value = training_step(model.train(), loss, method, images, LABELS, attack, generator())
    assert_close(value, expected_loss)
    assert value > 0
    value.backward()
    expected_loss.backward()
    for branch, network in networks.items():
        routed = extract_branch(model, branch)
        for key, statistic in network.named_buffers():
            assert_close(routed.get_buffer(key), statistic, msg=f"{branch} {key}")
        for norm, alone in zip(multi_batchnorms(model), _norms(network), strict=False):
            assert_close(norm.branches[branch].weight.grad, alone.weight.grad)
    shared = [key for key, _ in model.network.fc.named_parameters()]
    for key in shared:
        total = sum(network.network.fc.get_parameter(key).grad for network in networks.values())
        assert_close(model.network.fc.get_parameter(key).grad, total)


def _norms(network: nn.Module) -> list[nn.BatchNorm2d]:
    return [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]


def test_standard_is_ordinary_training() -> None:
    model, images, loss = model_for(METHODS["standard"]), batch(), MultiSimilarityLoss()
    twin = copy.deepcopy(model)
    draws = generator()
    state = draws.get_state()
    value = training_step(model.eval(), loss, METHODS["standard"], images, LABELS, None, draws)
    expected = loss(twin(images), LABELS)
    assert torch.equal(value, expected)
    assert torch.equal(draws.get_state(), state)
    value.backward()
    expected.backward()
    for parameter, other in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(parameter.grad, other.grad)
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), twin.buffers(), strict=True))


@pytest.mark.parametrize("name", METHODS)
def test_statistics_move_once_a_step_and_only_by_the_training_pass(name: str) -> None:
    method = METHODS[name]
    model = model_for(method).eval()
    before = copy.deepcopy(model.state_dict())
    if method.adversarial:
        examples(model, method, batch(), LABELS, ATTACK, generator())
        assert not model.training
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    training_step(model, MultiSimilarityLoss(), method, batch(), LABELS, ATTACK, generator())
    assert all(module.training for module in model.modules())
    for branch in method.branches:
        for norm in _norms(extract_branch(model, branch)):
            assert norm.num_batches_tracked == 1


@pytest.mark.parametrize("name", METHODS)
def test_a_step_leaves_no_routes_and_no_gradients_behind(name: str) -> None:
    method = METHODS[name]
    model = model_for(method)
    training_step(model, MultiSimilarityLoss(), method, batch(), LABELS, ATTACK, generator())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(norm.routes == "clean" for norm in multi_batchnorms(model))


@pytest.mark.parametrize("name", BATCHES)
def test_the_generator_decides_the_attack(name: str) -> None:
    method, images = METHODS[name], batch()
    model = model_for(method).eval()

    def attacked(seed: int) -> Tensor:
        torch.rand(1)  # the global generator has no say
        draws = torch.Generator().manual_seed(seed)
        return examples(model, method, images, LABELS, ATTACK, draws)[0]

    assert torch.equal(attacked(0), attacked(0))
    assert not torch.equal(attacked(0), attacked(1))


@pytest.mark.parametrize("changes", [{"epsilon": 0.05}, {"epsilon": 0.2, "units": "normalized"}])
def test_attacked_images_are_in_the_ball_and_in_range(changes: dict[str, Any]) -> None:
    model, images = model_for(METHODS["mdprop"]).eval(), batch().round(decimals=1)
    attack = attack_settings(steps=4, start_noise=0.2, **changes)
    attacked, _ = examples(model, METHODS["mdprop"], images, LABELS, attack, generator())
    assert (attacked - images).abs().max() <= 0.05 + 1e-6
    assert attacked.min() >= 0
    assert attacked.max() <= 1


def test_the_attack_brings_embeddings_nearer_to_their_targets() -> None:
    model, images = model_for(METHODS["advprop"]).eval(), batch()
    attack = attack_settings(epsilon=0.002, steps=3, start_noise=0.0)
    attacked, _ = examples(model, METHODS["advprop"], images, LABELS, attack, generator())
    with route(model, "single_target"), torch.no_grad():
        clean = model(images)
        targets = choose_targets(clean, LABELS, 1, "other_class", generator())[0]
        before, after = (clean - targets).norm(dim=1), (model(attacked) - targets).norm(dim=1)
    assert (after < before).all()


def test_a_slice_without_rows_is_left_out() -> None:
    # Half an image is none: the single-targeted slice of a batch of one is empty.
    model = model_for(METHODS["mdprop"]).eval()
    attack = attack_settings(target_kind="any")
    attacked, labels = examples(model, METHODS["mdprop"], batch()[:1], LABELS[:1], attack, generator())
    assert attacked.shape == (1, 1, 16, 16)
    assert labels.tolist() == [0]
    assert attacked.isfinite().all()


def test_a_method_that_attacks_part_of_the_batch() -> None:
    method = make_method("half", {"goal": "single_target", "share": "1/2"})
    model, images, loss = model_for(method), batch(), MultiSimilarityLoss()
    slices: Slices = [("single_target", range(6), 1, None)]
    attacked = restated_attack(model, slices, images, ATTACK)
    expected, _ = restated_loss(model, slices, images, attacked, loss)
    assert_close(training_step(model, loss, method, images, LABELS, ATTACK, generator()), expected)


def test_an_adversarial_method_needs_an_attack() -> None:
    with pytest.raises(ValueError, match=r"^method 'at' needs an attack$"):
        training_step(
            model_for(METHODS["at"]), MultiSimilarityLoss(), METHODS["at"], batch(), LABELS, None, generator()
        )


def test_the_authors_range_is_that_of_each_slice() -> None:
    model, images = model_for(METHODS["mdprop"]).eval(), 0.3 + 0.4 * batch()
    images[:6] *= 0.5  # the single-targeted half is darker
    attack = attack_settings(target_kind="any", epsilon=0.5, start_noise=0.0, clip="batch")
    attacked, _ = examples(model, METHODS["mdprop"], images, LABELS, attack, generator())
    for half, clean in ((attacked[:6], images[:6]), (attacked[6:], images[6:])):
        assert_close(half.min(), clean.min())
        assert_close(half.max(), clean.max())


def test_the_authors_range_is_one_for_all_normalised_channels() -> None:
    model = small_embedder(("clean",), channels=3).double().eval()
    model.std.copy_(torch.tensor([0.1, 0.2, 0.4]).view(3, 1, 1))
    images = torch.rand(12, 3, 16, 16, generator=generator(), dtype=torch.float64)
    attack = attack_settings(
        target_kind="any", epsilon=20.0, units="normalized", start_noise=0.0, clip="batch"
    )
    attacked, _ = examples(model, METHODS["at"], images, LABELS, attack, generator())
    normalized = (images - model.mean) / model.std
    moved = (attacked - model.mean) / model.std
    assert_close(moved.amin((0, 2, 3)), normalized.min().expand(3))
    assert_close(moved.amax((0, 2, 3)), normalized.max().expand(3))


def test_a_slice_of_one_class_aims_at_its_own() -> None:
    # Classes drawn with replacement may fill a slice with one of them.
    model = model_for(METHODS["mdprop"]).eval()
    labels = torch.tensor([0] * 6 + [1, 1, 2, 2, 3, 3])
    attacked, _ = examples(model, METHODS["mdprop"], batch(), labels, ATTACK, generator())
    assert attacked.isfinite().all()


def test_s2sd_sees_the_features_of_all_slices() -> None:
    seen: list[tuple[int, ...]] = []

    class Recorded(S2SDLoss):
        def forward(self, embeddings: Tensor, labels: Tensor, features: Tensor) -> Tensor:
            seen.extend(tuple(t.shape) for t in (embeddings, labels, features))
            return super().forward(embeddings, labels, features)

    model = model_for(METHODS["mdprop"])
    loss = Recorded(4, MultiSimilarityLoss(), MultiSimilarityLoss(), target_dims=(8, 16)).double()
    value = training_step(model, loss, METHODS["mdprop"], batch(), LABELS, ATTACK, generator())
    value.backward()
    assert seen == [(24, 6), (24,), (24, 4, 1, 1)]
    assert all(p.grad is not None for p in [*model.parameters(), *loss.parameters()])


def test_without_start_noise_a_shared_forward_changes_nothing() -> None:
    model, images = model_for(METHODS["mdprop"]).eval(), batch()
    for steps in (1, 2):
        apart, together = (
            examples(model, METHODS["mdprop"], images, LABELS, a, generator())[0]
            for a in (
                attack_settings(steps=steps, start_noise=0.0, shared_forward=shared)
                for shared in (False, True)
            )
        )
        assert torch.equal(apart, together)


def test_a_shared_forward_aims_at_the_noisy_start_and_saves_a_pass() -> None:
    model, images = model_for(METHODS["advprop"]).eval(), batch()
    passes: list[Tensor] = []
    model.register_forward_hook(lambda _, inputs, __: passes.append(inputs[0].detach()))
    attack = attack_settings(start_noise=0.2, shared_forward=True)
    attacked, _ = examples(model, METHODS["advprop"], images, LABELS, attack, generator())
    assert len(passes) == 1
    draws = generator()
    rows = target_rows(LABELS, torch.arange(12), 1, "other_class", draws)[0]
    start = images + 0.2 * (2 * torch.rand(images.shape, generator=draws).double() - 1)
    assert_close(passes[0], start)
    start.requires_grad_(True)
    with route(model, "single_target"):
        embeddings = model(start)
    distance = (embeddings - embeddings.detach()[rows]).norm(dim=1).mean() ** 2
    (gradient,) = torch.autograd.grad(distance, start)
    expected = start.detach() - 0.05 * gradient.sign()
    expected = torch.minimum(torch.maximum(expected, images - 0.05), images + 0.05).clamp(0, 1)
    assert_close(attacked, expected)


def test_in_bfloat16_all_weights_learn_about_the_same() -> None:
    method, images = METHODS["mdprop"], batch().float()
    gradients, values = [], []
    for precision in ("float32", "bfloat16"):
        model = model_for(method).float()
        loss = MultiSimilarityLoss()
        seen: list[torch.dtype] = []
        model.register_forward_hook(lambda _, __, output, seen=seen: seen.append(output.dtype))
        value = training_step(model, loss, method, images, LABELS, ATTACK, generator(), precision)
        value.backward()
        assert set(seen) == {torch.float32} and value.dtype == torch.float32
        assert all(
            p.grad is not None and p.grad.dtype == p.dtype == torch.float32 for p in model.parameters()
        )
        assert all(b.dtype in (torch.float32, torch.int64) for b in model.buffers())
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
        values.append(value.item())
    assert values[0] != values[1]
    assert values[1] == pytest.approx(values[0], rel=0.03)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.9


def test_in_bfloat16_the_network_alone_is_less_precise() -> None:
    method = METHODS["mdprop"]
    model = model_for(method).float()
    computed: dict[str, set[torch.dtype]] = {"convolution": set(), "batch norm": set()}
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda _, __, y: computed["convolution"].add(y.dtype))
        if isinstance(module, MultiBatchNorm2d):
            module.register_forward_hook(lambda _, __, y: computed["batch norm"].add(y.dtype))
    outside: list[torch.dtype] = []

    class Recorded(S2SDLoss):
        def forward(self, embeddings: Tensor, labels: Tensor, features: Tensor) -> Tensor:
            outside.extend(x.dtype for x in (embeddings, features))
            value = super().forward(embeddings, labels, features)
            outside.append(value.dtype)
            return value

    loss = Recorded(4, MultiSimilarityLoss(), MultiSimilarityLoss(), target_dims=(8, 16))
    training_step(model, loss, method, batch().float(), LABELS, ATTACK, generator(), "bfloat16").backward()
    assert computed == {"convolution": {torch.bfloat16}, "batch norm": {torch.bfloat16}}
    assert set(outside) == {torch.float32}


TWO_RADII = make_method(
    "two_radii",
    {"goal": "single_target", "share": "1/2", "branch": "near", "epsilon": 0.02},
    {"goal": "single_target", "share": "1/2", "branch": "far", "epsilon": 0.06},
)
MIXED = make_method(
    "mixed",
    {"goal": "multi_target", "share": "1/3", "targets": 2},
    {"goal": "single_target", "share": "1/3", "branch": "clean"},
    {"goal": "untargeted", "share": "1/3"},
)


def test_two_slices_of_one_goal_have_their_own_radius_and_branch() -> None:
    model, images = model_for(TWO_RADII), batch()
    near: Slices = [("near", range(6), 1, None)]
    far: Slices = [("far", range(6, 12), 1, None)]
    attacked, labels = examples(model.eval(), TWO_RADII, images, LABELS, ATTACK, generator())
    assert labels.tolist() == LABELS.tolist()
    for rows, epsilon in ((slice(0, 6), 0.02), (slice(6, 12), 0.06)):
        assert_close((attacked[rows] - images[rows]).abs().max(), torch.tensor(epsilon).double())
    rows = batch_rows(TWO_RADII, 12)
    assert rows.routes == {"clean": 12, "near": 6, "far": 6}
    assert sum(rows.routes.values()) == len(images) + len(attacked)
    value = training_step(
        model.train(), MultiSimilarityLoss(), TWO_RADII, images, LABELS, ATTACK, generator()
    )
    expected, _ = restated_loss(model, near + far, images, attacked, MultiSimilarityLoss())
    assert_close(value, expected)


def test_slices_of_one_branch_lie_side_by_side_and_goals_keep_their_own_targets() -> None:
    model, images = model_for(MIXED).eval(), batch()
    rows = batch_rows(MIXED, 12)
    assert rows.routes == {"clean": 16, "multi_target": 4, "untargeted": 4}
    assert rows.attacked_routes == {"clean": 4, "multi_target": 4, "untargeted": 4}
    attacked, _ = examples(model, MIXED, images, LABELS, attack_settings(steps=5), generator())
    with torch.no_grad():
        for branch, own in (("clean", slice(0, 4)), ("untargeted", slice(8, 12))):
            with route(model, branch):
                moved = (model(attacked[own]) - model(images[own])).norm(dim=1)
            assert (moved > 0.005).all()
    value = training_step(model, MultiSimilarityLoss(), MIXED, images, LABELS, ATTACK, generator())
    assert value.isfinite() and value > 0


def test_an_untargeted_slice_flees_from_its_own_embedding() -> None:
    method = make_method("flight", {"goal": "untargeted", "branch": "clean"})
    model, images = model_for(method).eval(), batch()
    attack = attack_settings(epsilon=0.01, steps=4)
    attacked, _ = examples(model, method, images, LABELS, attack, generator())
    draws = generator()
    x = images + 0.01 * (2 * torch.rand(images.shape, generator=draws).double() - 1)
    with torch.no_grad():
        clean = model(images)
    for _ in range(4):
        x = x.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad((model(x) - clean).norm(dim=1).sum(), x)
        x = x.detach() + 0.0025 * gradient.sign()
        x = torch.minimum(torch.maximum(x, images - 0.01), images + 0.01).clamp(0, 1)
    assert_close(attacked, x)
