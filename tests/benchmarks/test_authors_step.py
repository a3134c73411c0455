"""The authors' step as the benchmark states it: against their own numbers, and against ours."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from benchmarks import training_step as program
from benchmarks.authors_step import MULTI, SINGLE, AuthorsTraining, Draws, ThreeBatchNorms, multi_similarity
from tests.helpers import golden


def test_loss_is_the_authors() -> None:
    arrays = golden("multisimilarity")
    embeddings = torch.from_numpy(arrays["embeddings"]).requires_grad_(True)
    loss = multi_similarity(embeddings, torch.from_numpy(arrays["labels"]))
    (gradient,) = torch.autograd.grad(loss, embeddings)
    assert loss.item() == pytest.approx(float(arrays["loss"]), rel=1e-5)
    torch.testing.assert_close(gradient, torch.from_numpy(arrays["grad"]), rtol=1e-5, atol=1e-7)


def test_loss_without_any_pair_fails_as_theirs_does() -> None:
    with pytest.raises(RuntimeError, match="non-empty"):
        multi_similarity(torch.eye(4)[[0, 0, 1, 1]], torch.tensor([0, 0, 1, 1]))


def test_batch_norms_are_the_authors() -> None:
    arrays = golden("multi_batchnorm")
    states: dict[str, dict[str, Tensor]] = {"before": {}, "after": {}}
    for name, value in arrays.items():
        when, _, key = name.partition("__")
        if when in states:
            key = key.replace("aux_bn1__", "single.").replace("aux_bn2__", "multi.")
            states[when][key] = torch.from_numpy(value)
    norm = ThreeBatchNorms(arrays["x"].shape[1])
    norm.load_state_dict(states["before"])
    x = torch.from_numpy(arrays["x"]).requires_grad_(True)
    out = norm(x)
    (gradient,) = torch.autograd.grad((out * torch.from_numpy(arrays["weight"])).sum(), x)
    torch.testing.assert_close(out, torch.from_numpy(arrays["train_out"]))
    torch.testing.assert_close(gradient, torch.from_numpy(arrays["grad_x"]))
    for name, value in norm.state_dict().items():
        torch.testing.assert_close(value, states["after"][name])
    norm.eval()
    for path, name in ((SINGLE, "eval_adv1"), (MULTI, "eval_adv2")):
        norm.path = path
        torch.testing.assert_close(norm(x), torch.from_numpy(arrays[name]))


@pytest.mark.parametrize("case", ["multi", "multi_steps"])
def test_attack_is_the_authors(case: str) -> None:
    arrays = golden("attack")
    images, perms, noise, adv = (
        torch.from_numpy(arrays[name]) for name in ("x", f"{case}__perms", f"{case}__noise", f"{case}__adv")
    )
    convolution, linear = nn.Conv2d(3, 8, 3, bias=False), nn.Linear(288, 12, bias=False)
    convolution.weight.data = torch.from_numpy(arrays["conv_weight"])
    linear.weight.data = torch.from_numpy(arrays["linear_weight"])
    training = AuthorsTraining("resnet18", 1)
    training.epsilon, training.steps = float(arrays[f"{case}__epsilon"]), int(arrays[f"{case}__steps"])
    training.network = nn.Sequential(
        convolution, nn.Tanh(), nn.AdaptiveAvgPool2d(6), nn.Flatten(), linear
    )  # the L2 norm is the class's own
    moved = training.attack(images, len(perms), perms, noise)
    torch.testing.assert_close(moved, adv, rtol=0, atol=1e-6)


def test_chance_is_the_authors_where_none_is_given() -> None:
    torch.manual_seed(0)
    training = AuthorsTraining("resnet18", 8, epsilon=0.3, start_noise=0.01)
    images, labels = torch.rand(8, 3, 32, 32), torch.arange(4).repeat_interleave(2)
    losses = [training.step(images, labels) for _ in range(2)]
    assert losses[0] != losses[1]
    assert len(training.log) == 2 and all(most >= root_mean > 0 for root_mean, most in training.log)


def test_check_finds_a_step_that_is_not_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.check("resnet18", 32, 8, steps=1)
    assert "NOT the same" not in capsys.readouterr().out
    draw = program.draw

    def other_targets(normalised: Tensor, generator: torch.Generator) -> Draws:
        drawn = draw(normalised, generator)
        return Draws((drawn.permutations[0].roll(1, 1), drawn.permutations[1]), drawn.noise)

    monkeypatch.setattr(program, "draw", other_targets)
    assert not program.check("resnet18", 32, 8, steps=1)
    assert capsys.readouterr().out.count("NOT the same") >= 1
