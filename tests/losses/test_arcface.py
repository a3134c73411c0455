from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from pytorch_metric_learning import losses
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from mdprop.losses import ArcFaceLoss
from tests.helpers import golden


def plain_loss(embeddings: Tensor, labels: Tensor, centres: Tensor, margin: float, scale: float) -> Tensor:
    """The mean of −log softmax, image by image, with cos(θ + margin) for the image's own class."""
    terms = []
    for embedding, label in zip(embeddings, labels.tolist(), strict=True):
        logits = []
        for c, centre in enumerate(centres):
            cosine = (embedding @ centre) / (embedding.norm() * centre.norm())
            logits.append(scale * (torch.cos(torch.acos(cosine) + margin) if c == label else cosine))
        terms.append(torch.logsumexp(torch.stack(logits), 0) - logits[label])
    return torch.stack(terms).mean()


def problem(
    batch: int = 12, classes: int = 5, dim: int = 6, seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embeddings = F.normalize(torch.randn(batch, dim, generator=generator, dtype=dtype))
    labels = torch.randint(classes, (batch,), generator=generator)
    return embeddings, labels, torch.randn(classes, dim, generator=generator, dtype=dtype)


def loss_with(centres: Tensor, margin: float = 0.5, scale: float = 16.0) -> ArcFaceLoss:
    loss = ArcFaceLoss(*centres.shape, margin=margin, scale=scale).to(centres.dtype)
    loss.class_map.data.copy_(centres)
    return loss


@pytest.mark.parametrize(("margin", "scale"), [(0.5, 16.0), (0.3, 64.0), (0.0, 1.0)])
def test_values_and_gradients_equal_the_plain_statement(margin: float, scale: float) -> None:
    embeddings, labels, centres = problem()
    loss = loss_with(centres, margin, scale)
    own = embeddings.clone().requires_grad_(True)
    value = loss(own, labels)
    value.backward()
    theirs, their_centres = embeddings.clone().requires_grad_(True), centres.clone().requires_grad_(True)
    expected = plain_loss(theirs, labels, their_centres, margin, scale)
    expected.backward()
    assert (F.normalize(embeddings) @ F.normalize(centres).T).min() < -0.3  # negative cosines are met
    assert_close(value, expected, rtol=1e-6, atol=0)
    assert_close(own.grad, theirs.grad, rtol=1e-6, atol=1e-9)
    assert_close(loss.class_map.grad, their_centres.grad, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("margin", [0.5, 1.2])
def test_values_and_gradients_equal_the_librarys(margin: float) -> None:
    """Also beyond π − margin, in float32, at its size of a problem."""
    embeddings, labels, centres = problem(64, 20, 4, seed=1, dtype=torch.float32)
    target = (F.normalize(embeddings) * F.normalize(centres)[labels]).sum(1)
    assert (target < -math.cos(margin)).any()
    peer = losses.ArcFaceLoss(20, 4, margin=math.degrees(margin), scale=16.0)
    peer.W.data.copy_(centres.T)
    loss = loss_with(centres, margin)
    own, theirs = embeddings.clone().requires_grad_(True), embeddings.clone().requires_grad_(True)
    value, expected = loss(own, labels), peer(theirs, labels)
    value.backward()
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    assert_close(own.grad, theirs.grad, rtol=0, atol=1e-5 * float(theirs.grad.abs().max()))
    assert_close(loss.class_map.grad, peer.W.grad.T, rtol=0, atol=1e-5 * float(peer.W.grad.abs().max()))


def test_the_authors_margin_cancels_out() -> None:
    """What the docstring says of their numbers: no margin, and cosines clamped from below."""
    arrays = {name: torch.from_numpy(np.asarray(array)) for name, array in golden("arcface").items()}
    embeddings, labels, centres = (arrays[name] for name in ("embeddings", "labels", "class_map"))
    scale, margin = float(arrays["feature_scale"]), float(arrays["angular_margin"])
    cosines = embeddings @ F.normalize(centres).T
    clamped = F.cross_entropy(scale * cosines.clamp(min=1e-10), labels)
    assert clamped.item() == pytest.approx(float(arrays["loss"]), rel=1e-6)
    expected = plain_loss(embeddings, labels, centres, margin, scale).item()
    assert loss_with(centres, margin, scale)(embeddings, labels).item() == pytest.approx(expected, rel=1e-5)
    assert expected > 2 * float(arrays["loss"])


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("margin", [0.0, 0.5, math.pi])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_at_a_centre_and_opposite_to_it(
    sign: float, margin: float, dtype: torch.dtype
) -> None:
    centres = torch.eye(3, dtype=dtype)
    embeddings = (sign * centres).requires_grad_(True)
    loss = loss_with(centres, margin)
    value = loss(embeddings, torch.arange(3))
    value.backward()
    assert value.isfinite()
    assert embeddings.grad.isfinite().all()
    assert loss.class_map.grad.isfinite().all()


def test_the_loss_falls_as_the_angle_shrinks() -> None:
    """From opposite the centre to on it; cos(θ + margin) alone would rise near π."""
    angles = torch.linspace(math.pi, 0, 50, dtype=torch.float64)
    loss = loss_with(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64))
    points = torch.stack([angles.cos(), angles.sin(), torch.zeros_like(angles)], dim=1)
    values = torch.stack([loss(point[None], torch.zeros(1, dtype=torch.int64)) for point in points])
    assert (values.diff() < 0).all()


def test_the_length_of_embeddings_and_centres_plays_no_role() -> None:
    embeddings, labels, centres = problem()
    assert_close(loss_with(7 * centres)(0.1 * embeddings, labels), loss_with(centres)(embeddings, labels))


@pytest.mark.parametrize("wrong", [-1, 5])
def test_labels_outside_the_classes(wrong: int) -> None:
    embeddings, labels, centres = problem()
    labels[3] = wrong
    with pytest.raises(
        ValueError, match=r"^labels run from -?\d to \d; with 5 classes they must lie in 0 … 4$"
    ):
        loss_with(centres)(embeddings, labels)


def test_centres_start_in_a_cube_that_shrinks_with_the_dimensions() -> None:
    torch.manual_seed(0)
    loss = ArcFaceLoss(400, 16)
    assert (loss.margin, loss.scale) == (0.5, 16.0)
    assert 0.249 < loss.class_map.max() <= 0.25
    assert -0.25 <= loss.class_map.min() < -0.249


def test_settings_without_a_meaning() -> None:
    with pytest.raises(ValueError, match=r"^margin = 28\.6: it is an angle in radians, from 0 to π$"):
        ArcFaceLoss(5, 4, margin=28.6)
    with pytest.raises(ValueError, match=r"^scale = 0: a number above 0 is needed$"):
        ArcFaceLoss(5, 4, scale=0)
    with pytest.raises(ValueError, match=r"^scale = inf: a number above 0 is needed$"):
        ArcFaceLoss(5, 4, scale=math.inf)
