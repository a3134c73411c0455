from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mdprop.errors import ModelError
from mdprop.robustness.foreign import ForeignEmbedder, probe

Forward = Callable[["Network", Tensor], Any]
IMAGES = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))


class Network(nn.Module):
    """A linear layer, and whatever a test makes of it."""

    def __init__(self, forward: Forward) -> None:
        super().__init__()
        self.layer = nn.Linear(48, 6)
        self.register_buffer("seen", torch.zeros(()))
        self.make = forward

    def embed(self, images: Tensor) -> Tensor:
        return self.layer(images.flatten(1))

    def forward(self, images: Tensor) -> Any:
        return self.make(self, images)


class AlwaysTraining(nn.Module):
    """Its batch norm follows the images in eval mode, too."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.layer = nn.BatchNorm2d(3), nn.Linear(48, 6)

    def train(self, mode: bool = True) -> AlwaysTraining:
        return super().train(True)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(self.norm(images).flatten(1))


def foreign(network: nn.Module | Forward, normalize: bool = False) -> ForeignEmbedder:
    module = network if isinstance(network, nn.Module) else Network(network)
    model = ForeignEmbedder(module, [0.5] * 3, [0.1, 0.2, 0.4], normalize=normalize, name="net.py:f")
    return model.eval()


def tried(network: nn.Module | Forward, gradients: bool = True) -> None:
    probe(foreign(network), "net.py:f", IMAGES, gradients=gradients)


def test_a_network_takes_pixels_and_is_normalised_to_length_one() -> None:
    found: list[Tensor] = []
    model = foreign(lambda net, x: (found.append(x), net.embed(x))[1])
    embeddings = model(IMAGES)
    assert torch.equal(found[0], IMAGES)
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(5))
    expected = nn.functional.normalize(model.network.embed(IMAGES))  # type: ignore[operator]
    torch.testing.assert_close(embeddings, expected)


def test_normalised_images_where_they_are_asked_for() -> None:
    found: list[Tensor] = []
    foreign(lambda net, x: (found.append(x), net.embed(x))[1], normalize=True)(IMAGES)
    std = torch.tensor([0.1, 0.2, 0.4]).view(3, 1, 1)
    torch.testing.assert_close(found[0], (IMAGES - 0.5) / std)


def test_images_lie_in_memory_as_networks_expect() -> None:
    model = foreign(lambda net, x: net.layer(x.view(len(x), -1)))
    model(IMAGES.to(memory_format=torch.channels_last))


def test_weights_in_other_precision_give_embeddings_in_ours() -> None:
    def halves(net: Network, x: Tensor) -> Tensor:
        return net.embed(x).half()

    assert foreign(halves)(IMAGES).dtype == torch.float32


def test_a_sound_network_passes_and_is_as_it_was() -> None:
    model = foreign(Network.embed)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    probe(model, "net", IMAGES, gradients=True)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_a_gradient_of_zero_passes() -> None:
    tried(lambda net, x: net.embed(x.round()))


def without_gradient(net: Network, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net.embed(x)


def in_inference_mode(net: Network, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return net.embed(x)


def replaces_a_buffer(net: Network, x: Tensor) -> Tensor:
    net.seen = net.seen + 1
    return net.embed(x)


def some_size_only(size: int) -> Forward:
    def forward(net: Network, x: Tensor) -> Tensor:
        if len(x) == size:
            raise ValueError("not this\nsize")
        return net.embed(x)

    return forward


def nothing_beyond(net: Network, x: Tensor) -> Tensor:
    """Not finite, but not among the first two images."""
    return net.embed(x).masked_fill(torch.arange(len(x))[:, None] == 4, torch.inf)


class Broken(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()


UNDERIVED = r"^net\.py:f has no gradient of its pixels, which pgd and apgd follow: .*"
NEEDED = r"for images \[2, 3, 4, 4\]: embeddings \[2, D\] are needed"
CHANGES = r"^net\.py:f changes while it embeds in eval mode \({} parameters and .* such as 'network\.{}'\)"


@pytest.mark.parametrize(
    ("network", "problem"),
    [
        (
            some_size_only(2),
            r"^net\.py:f fails on images \[2, 3, 4, 4\]: ValueError: not this size \(.*",
        ),
        (some_size_only(1), r"^net\.py:f fails on images \[1, 3, 4, 4\]: ValueError"),
        (some_size_only(5), r"^net\.py:f fails on images \[5, 3, 4, 4\]: ValueError"),
        (nn.Conv2d(1, 4, 3), r"fails on images \[2, 3, 4, 4\]: RuntimeError: .*channels"),
        (lambda net, x: (net.embed(x),), rf"returns a tuple {NEEDED}"),
        (lambda net, x: {"embeddings": net.embed(x)}, rf"returns a dict {NEEDED}"),
        (lambda net, x: None, rf"returns a NoneType {NEEDED}"),
        (lambda net, x: net.embed(x)[..., None], rf"returns \[2, 6, 1\] {NEEDED}"),
        (lambda net, x: net.embed(x)[:1], rf"returns \[1, 6\] {NEEDED}"),
        (lambda net, x: net.embed(x)[:, :2], rf"returns \[2, 2\] {NEEDED}"),
        (lambda net, x: net.embed(x).mean(), rf"returns \[\] {NEEDED}"),
        (lambda net, x: net.embed(x).long(), rf"returns numbers of torch\.int64 {NEEDED}"),
        (lambda net, x: net.embed(x) * torch.nan, r"not finite"),
        (nothing_beyond, r"not finite"),
        (without_gradient, UNDERIVED + "apart from them"),
        (in_inference_mode, UNDERIVED + "apart from them"),
        (lambda net, x: net.embed(x.detach()), UNDERIVED + "apart from them"),
        (lambda net, x: torch.from_numpy(net.embed(x).detach().numpy()), UNDERIVED + "apart from them"),
        (lambda net, x: x.flatten(1).detach().requires_grad_(), UNDERIVED + "apart from them"),
        (lambda net, x: Broken.apply(net.embed(x)), UNDERIVED + "NotImplementedError: You must implement"),
        (replaces_a_buffer, CHANGES.format(1, "seen")),
        (AlwaysTraining(), CHANGES.format(3, r"norm\.running_mean")),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(network: nn.Module | Forward, problem: str) -> None:
    with pytest.raises(ModelError, match=problem) as caught:
        tried(network)
    assert "\n" not in str(caught.value)


def test_without_gradients_where_no_attack_follows_them() -> None:
    tried(without_gradient, gradients=False)
