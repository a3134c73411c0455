"""Each goal against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from mdprop.attacks import GOALS, get_goal
from mdprop.attacks.goals.towards import towards_any
from mdprop.errors import ParameterError

LABELS = torch.arange(6).repeat_interleave(3)
ROWS = torch.tensor([0, 4, 5, 11, 17])


def embeddings(rows: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, 4, generator=generator, dtype=torch.float64))


def aims_of(name: str, count: int = 3) -> Tensor:
    return get_goal(name).aims(LABELS, ROWS, count, torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "count"), [("single_target", 1), ("multi_target", 3), ("untargeted", 1), ("unadversarial", 1)]
)
def test_what_each_image_looks_at(name: str, count: int) -> None:
    aims = aims_of(name)
    assert aims.shape == (count, len(ROWS))
    for row, looked_at in zip(ROWS.tolist(), aims.T.tolist(), strict=True):
        for aim in looked_at:
            if name == "untargeted":
                assert aim == row
            else:
                assert aim != row
                assert (LABELS[aim] == LABELS[row]) == (name == "unadversarial")
        assert len(set(looked_at)) == count


@pytest.mark.parametrize("name", ["single_target", "multi_target", "untargeted", "unadversarial"])
def test_objectives_are_those_of_a_plain_loop(name: str) -> None:
    space, moved = embeddings(18), embeddings(len(ROWS), seed=1)
    aims = aims_of(name)
    found = get_goal(name).objective(moved, space[aims])
    for i in range(len(ROWS)):
        distances = [float((moved[i] - space[aims[t, i]]).norm()) for t in range(len(aims))]
        sign = -1 if name == "untargeted" else 1
        assert float(found[i]) == pytest.approx(sign * sum(distances) / len(distances))


@pytest.mark.parametrize("name", GOALS)
def test_each_image_has_an_objective_of_its_own(name: str) -> None:
    space, moved = embeddings(18), embeddings(len(ROWS), seed=1).requires_grad_(True)
    found = get_goal(name).objective(moved, space[aims_of(name)])
    (gradient,) = torch.autograd.grad(found[2], moved)
    others = [0, 1, 3, 4]
    assert gradient[2].abs().sum() > 0
    assert (gradient[others] == 0).all()


def test_the_approach_is_the_share_of_the_way() -> None:
    clean = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    aims = np.array([[[0.0, 0.0], [0.0, -1.0]], [[-1.0, 0.0], [0.0, -1.0]]], dtype=np.float32)
    attacked = np.array([[0.5, 0.0], [0.0, -1.0]], dtype=np.float32)
    measured = get_goal("multi_target").measure(attacked, clean, aims)
    # The first was 1 and 2 away, mean 1.5, and is 0.5 and 1.5 away, mean 1; the second arrived.
    assert list(measured) == ["approach"]
    np.testing.assert_allclose(measured["approach"], [1 / 3, 1.0], rtol=1e-6)
    assert get_goal("untargeted").measure(attacked, clean, aims[:1]) == {}


def test_an_image_that_is_alone_in_its_class_covers_no_way() -> None:
    same = np.ones((1, 2), dtype=np.float32)
    assert get_goal("unadversarial").measure(same, same, same[None])["approach"].tolist() == [1.0]


def test_the_authors_rule_lets_targets_be_of_any_class() -> None:
    goal = towards_any(get_goal("multi_target"))
    labels = torch.zeros(5, dtype=torch.int64)
    rows = goal.aims(labels, torch.arange(5), 3, torch.Generator().manual_seed(0))
    assert [sorted(row) for row in rows.tolist()] == [list(range(5))] * 3
    assert towards_any(get_goal("unadversarial")) is get_goal("unadversarial")
    assert towards_any(get_goal("untargeted")) is get_goal("untargeted")


def test_goals_are_listed_by_their_own_names() -> None:
    assert all(goal.name == name for name, goal in GOALS.items())
    assert all(goal.label for goal in GOALS.values())
    with pytest.raises(
        ParameterError, match=r"^unknown goal 'away'; known: single_target, multi_target, untargeted, unadv"
    ):
        get_goal("away")
