from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from mdprop.layers import extract_branch
from mdprop.models import Embedder
from mdprop.models.joint import JointEmbedder
from tests.helpers import small_embedder

BRANCHES = ("clean", "a", "b")


def images(count: int = 5) -> torch.Tensor:
    return torch.rand(count, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def test_distances_and_cosines_are_the_means_over_branches() -> None:
    model = small_embedder(BRANCHES).eval()
    joint = JointEmbedder(model)(images())
    assert joint.shape == (5, 3 * 6)
    assert_close(joint.norm(dim=1), torch.ones(5))
    squares, cosines = [], []
    for branch in BRANCHES:
        plain = Embedder(extract_branch(model.network, branch), [0.5], [0.25], 1).eval()(images())
        squares.append(torch.cdist(plain, plain) ** 2)
        cosines.append(plain @ plain.T)
    assert_close(torch.cdist(joint, joint) ** 2, torch.stack(squares).mean(0), atol=1e-5, rtol=1e-4)
    assert_close(joint @ joint.T, torch.stack(cosines).mean(0), atol=1e-5, rtol=1e-4)


def test_the_network_is_left_as_it_was() -> None:
    model = small_embedder(BRANCHES).eval()
    before = model(images())
    JointEmbedder(model)(images())
    assert_close(model(images()), before, rtol=0, atol=0)


def test_it_has_the_means_and_deviations_of_its_network() -> None:
    model = small_embedder(BRANCHES)
    joint = JointEmbedder(model)
    assert joint.mean is model.mean
    assert joint.std is model.std


def test_a_network_without_branches_is_refused() -> None:
    with pytest.raises(ValueError, match="no branches to attack together"):
        JointEmbedder(small_embedder())
