"""Each goal against a plain loop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdprop.attacks import GOALS, get_goal
from mdprop.attacks.goals import Gallery
from mdprop.attacks.goals.nearness import ranking_among
from mdprop.attacks.goals.towards import towards_any
from mdprop.errors import ParameterError

LABELS = torch.arange(6).repeat_interleave(3)
ROWS = torch.tensor([0, 4, 5, 11, 17])


def embeddings(rows: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, 4, generator=generator, dtype=torch.float64))


def ranking_of(space: Tensor, rows: Tensor) -> Tensor:
    """The other rows, the nearest first."""
    order = torch.cdist(space[rows], space).argsort(dim=1)
    return order[order != rows[:, None]].view(len(rows), -1)


def aims_of(name: str, count: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return get_goal(name).aims(LABELS, ROWS, count, generator, ranking_of(embeddings(18), ROWS))


def gallery_of(aims: Tensor, space: Tensor | None = None, labels: Tensor = LABELS) -> Gallery[Tensor]:
    return Gallery(embeddings(18) if space is None else space, labels, ROWS, labels[ROWS], aims)


def in_numpy(gallery: Gallery[Tensor]) -> Gallery[NDArray[Any]]:
    return Gallery(**{name: value.numpy() for name, value in vars(gallery).items()})


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
    aims = aims_of(name)
    found = get_goal(name).objective(moved, space[aims], gallery_of(aims))
    (gradient,) = torch.autograd.grad(found[2], moved)
    others = [0, 1, 3, 4]
    assert gradient[2].abs().sum() > 0
    assert (gradient[others] == 0).all()


@pytest.mark.parametrize("name", GOALS)
def test_what_is_drawn_follows_the_generator_alone(name: str) -> None:
    torch.manual_seed(1)
    first = aims_of(name)
    torch.manual_seed(2)
    assert torch.equal(aims_of(name), first)


def test_the_approach_is_the_share_of_the_way() -> None:
    clean = np.array([[1.0, 0.0], [0.0, 1.0]], dtype=np.float32)
    aims = np.array([[[0.0, 0.0], [0.0, -1.0]], [[-1.0, 0.0], [0.0, -1.0]]], dtype=np.float32)
    attacked = np.array([[0.5, 0.0], [0.0, -1.0]], dtype=np.float32)
    measured = get_goal("multi_target").measure(attacked, clean, aims)
    # The first was 1 and 2 away, mean 1.5, and is 0.5 and 1.5 away, mean 1; the second arrived.
    assert list(measured) == ["approach"]
    np.testing.assert_allclose(measured["approach"], [1 / 3, 1.0], rtol=1e-6)
    assert measured["approach"].dtype == np.float32
    assert get_goal("untargeted").measure(attacked, clean, aims[:1]) == {}


def test_an_image_that_is_alone_in_its_class_covers_no_way() -> None:
    same = np.ones((1, 2), dtype=np.float32)
    assert get_goal("unadversarial").measure(same, same, same[None])["approach"].tolist() == [1.0]


def test_the_nearest_image_of_another_class() -> None:
    space, aims = embeddings(18), aims_of("nearest_other")
    for i, row in enumerate(ROWS.tolist()):
        others = [x for x in range(18) if LABELS[x] != LABELS[row]]
        assert aims[0, i] == min(others, key=lambda x: float((space[x] - space[row]).norm()))
    moved = embeddings(len(ROWS), seed=1)
    distances = [float((moved[i] - space[aims[0, i]]).norm()) for i in range(len(ROWS))]
    assert get_goal("nearest_other").objective(moved, space[aims]).tolist() == pytest.approx(distances)
    arrived = space[aims[0]].numpy()
    measured = get_goal("nearest_other").measure(arrived, space[ROWS].numpy(), space[aims].numpy())
    assert measured["approach"].tolist() == pytest.approx([1.0] * len(ROWS))


def test_the_depth_is_enough_to_meet_another_class() -> None:
    labels = torch.tensor([0, 0, 0, 0, 1, 2, 2])
    goal = get_goal("nearest_other")
    assert goal.depth(labels) == 4
    assert [get_goal(name).depth(labels) for name in ("ca_plus", "qa_plus")] == [0, 0]  # they rank nothing
    ranking = torch.tensor([[1, 2, 3, 6]])
    assert goal.aims(labels, torch.tensor([0]), 1, torch.Generator(), ranking).tolist() == [[6]]
    with pytest.raises(ValueError, match=r"^all images are of one class: there is no other class to aim at$"):
        goal.depth(labels[:4])
    assert [get_goal(name).depth(labels) for name in ("single_target", "untargeted", "from_centroid")] == [
        0
    ] * 3


def centroid(space: Tensor, row: int, labels: Tensor) -> Tensor:
    mates = [x for x in range(18) if labels[x] == labels[row] and x != row]
    return torch.stack([space[x] for x in mates]).mean(0) if mates else space[row]


@pytest.mark.parametrize("alone", [False, True])
def test_away_from_the_mean_of_the_other_images_of_the_class(alone: bool) -> None:
    labels = LABELS.clone()
    if alone:
        labels[4] = 9
    space, moved = embeddings(18), embeddings(len(ROWS), seed=1)
    aims = ROWS[None]
    goal, gallery = get_goal("from_centroid"), gallery_of(aims, labels=labels)
    expected = [
        float((moved[i] - centroid(space, row, labels)).norm()) for i, row in enumerate(ROWS.tolist())
    ]
    assert goal.objective(moved, space[aims], gallery).tolist() == pytest.approx([-x for x in expected])
    before = [float((space[row] - centroid(space, row, labels)).norm()) for row in ROWS.tolist()]
    measured = goal.measure(moved.numpy(), space[ROWS].numpy(), space[aims].numpy(), in_numpy(gallery))
    assert measured["retreat"].tolist() == pytest.approx(
        [a - b for a, b in zip(expected, before, strict=True)]
    )


@pytest.mark.filterwarnings("error")  # no division by the size of a class that is not there
def test_a_query_outside_the_gallery_flees_from_all_its_class() -> None:
    space, moved = embeddings(18), embeddings(2, seed=1)
    rows, labels = torch.tensor([-1, -1]), torch.tensor([3, 77])
    gallery = Gallery(space, LABELS, rows, labels, rows[None])
    goal, clean = get_goal("from_centroid"), embeddings(2, seed=2)
    expected = [(moved[0] - space[9:12].mean(0)).norm(), (moved[1] - clean[1]).norm()]
    before = [(clean[0] - space[9:12].mean(0)).norm(), torch.tensor(0.0)]
    found = goal.objective(moved, clean[None], gallery)
    assert (-found).tolist() == pytest.approx([float(x) for x in expected])
    measured = goal.measure(moved.numpy(), clean.numpy(), clean[None].numpy(), in_numpy(gallery))
    differences = [float(a - b) for a, b in zip(expected, before, strict=True)]
    assert measured["retreat"].tolist() == pytest.approx(differences)


def test_a_gradient_is_that_of_finite_differences() -> None:
    space, moved = embeddings(18), embeddings(len(ROWS), seed=1).requires_grad_(True)
    for name, goal in GOALS.items():
        aims = aims_of(name)

        def objective(x: Tensor, goal: Any = goal, aims: Tensor = aims) -> Tensor:
            return goal.objective(x, space[aims], gallery_of(aims))

        assert torch.autograd.gradcheck(objective, moved), name


def test_what_a_goal_needs_is_asked_for() -> None:
    space, moved = embeddings(18), embeddings(len(ROWS), seed=1)
    for name, goal in GOALS.items():
        if goal.needs_ranking:
            with pytest.raises(
                ValueError, match=rf"^goal {name} looks at near images: give it the clean ranking$"
            ):
                goal.aims(LABELS, ROWS, 1, torch.Generator())
        if goal.needs_gallery:
            with pytest.raises(ValueError, match=rf"^goal {name} compares with the gallery: give it one$"):
                goal.objective(moved, space[aims_of(name)])
        else:
            assert len(goal.objective(moved, space[aims_of(name)])) == len(ROWS)


def test_which_goals_are_attacks_and_on_whom() -> None:
    assert [name for name, goal in GOALS.items() if not goal.harms] == ["unadversarial"]
    assert [name for name, goal in GOALS.items() if goal.perturbs == "gallery"] == ["ca_plus", "ca_minus"]
    assert [name for name, goal in GOALS.items() if goal.many] == ["multi_target"]
    assert [name for name, goal in GOALS.items() if goal.needs_start] == ["untargeted", "from_centroid", "es"]


def test_the_authors_rule_lets_targets_be_of_any_class() -> None:
    goal = towards_any(get_goal("multi_target"))
    labels = torch.zeros(5, dtype=torch.int64)
    rows = goal.aims(labels, torch.arange(5), 3, torch.Generator().manual_seed(0))
    assert [sorted(row) for row in rows.tolist()] == [list(range(5))] * 3
    assert towards_any(get_goal("unadversarial")) is get_goal("unadversarial")
    assert towards_any(get_goal("untargeted")) is get_goal("untargeted")


def test_goals_are_listed_by_their_own_names() -> None:
    assert all(goal.name == name for name, goal in GOALS.items())
    assert len({goal.label for goal in GOALS.values()}) == len(GOALS)
    ours = ["single_target", "multi_target", "untargeted", "unadversarial", "nearest_other", "from_centroid"]
    theirs = ["ca_plus", "ca_minus", "qa_plus", "qa_minus", "tma", "es", "ltm", "gtm", "gtt"]
    assert list(GOALS) == ours + theirs
    with pytest.raises(
        ParameterError, match=r"^unknown goal 'away'; known: single_target, multi_target, untargeted, unadv"
    ):
        get_goal("away")


@pytest.mark.parametrize("count", [2, 7, 40])
def test_the_ranking_among_some_images_is_that_of_a_plain_loop(count: int) -> None:
    space, rows = embeddings(count), torch.arange(0, count, 2)
    found = ranking_among(space, rows)
    assert found.shape == (len(rows), count - 1)
    for row, order in zip(rows.tolist(), found.tolist(), strict=True):
        others = [x for x in range(count) if x != row]
        assert order == sorted(others, key=lambda x: float((space[x] - space[row]).norm()))


def test_an_image_that_is_alone_ranks_itself() -> None:
    assert ranking_among(embeddings(1), torch.tensor([0])).tolist() == [[0]]


def test_images_that_are_alike_are_told_apart_in_single_precision() -> None:
    far = 1 + torch.tensor([[0.0], [3e-6], [1e-6], [2e-6]])
    many = torch.cat([far, torch.full((40, 1), 5.0)])
    assert ranking_among(many, torch.tensor([0]))[0, :3].tolist() == [2, 3, 1]
