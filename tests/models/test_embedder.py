from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from mdprop.models import Embedder
from tests.helpers import small_embedder


class Recorder(nn.Module):
    """Keeps its input; returns the mean of each channel."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        return x.mean((2, 3))


def test_pixels_are_normalised_and_embeddings_have_unit_norm() -> None:
    model = Embedder(Recorder(), [0.2, 0.4, 0.6], [0.1, 0.2, 0.3], 3)
    images = torch.rand(5, 3, 4, 6)
    embeddings = model(images)
    mean, std = torch.tensor([0.2, 0.4, 0.6]), torch.tensor([0.1, 0.2, 0.3])
    expected = (images - mean[:, None, None]) / std[:, None, None]
    assert_close(model.network.seen, expected)
    assert_close(embeddings, F.normalize(expected.mean((2, 3)), dim=1))
    assert_close(embeddings.norm(dim=1), torch.ones(5))


def test_a_grey_image_meets_three_channels_as_three_equal_ones() -> None:
    model = Embedder(Recorder(), [0.5], [0.25], 3)
    images = torch.rand(2, 1, 4, 4)
    model(images)
    assert model.network.seen.shape == (2, 3, 4, 4)
    for channel in range(3):
        assert torch.equal(model.network.seen[:, [channel]], (images - 0.5) / 0.25)


def test_gradients_reach_the_pixels() -> None:
    model = small_embedder()
    images = torch.rand(2, 1, 16, 16, requires_grad=True)
    model.eval()(images)[:, 0].sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_the_state_is_the_networks_alone() -> None:
    model = small_embedder()
    assert all(key.startswith("network.") for key in model.state_dict())
    assert [key.removeprefix("network.") for key in model.state_dict()] == list(model.network.state_dict())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_mean_and_std_move_with_the_model(dtype: torch.dtype) -> None:
    model = small_embedder().to(dtype)
    assert (model.mean.dtype, model.std.dtype) == (dtype, dtype)
    assert model.eval()(torch.rand(2, 1, 16, 16, dtype=dtype)).dtype == dtype
