"""RobRank's goals, mended and as published, against plain loops and cases worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdprop.attacks.goals import GOALS, Gallery, Goal, get_goal, in_protocol, nearness
from mdprop.attacks.goals.protocols import ProtocolName

COUNT = 230
PROTOCOLS: tuple[ProtocolName, ...] = ("mdprop", "robrank")
ROBRANK = ["ca_plus", "ca_minus", "qa_plus", "qa_minus", "tma", "es", "ltm", "gtm", "gtt"]
RANKS = ["ca_plus", "ca_minus", "qa_plus", "qa_minus"]
ROWS = torch.tensor([0, 4, 40, 111, 170, 229])


def drawn(rows: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, 5, generator=generator, dtype=torch.float64))


SPACE, MOVED = drawn(COUNT, 0), drawn(len(ROWS), 1)
LABELS = torch.randint(12, (COUNT,), generator=torch.Generator().manual_seed(2)) * 7


def goal_of(name: str, protocol: ProtocolName) -> Goal:
    return in_protocol(get_goal(name), protocol)


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm())


def ranking_of(space: Tensor, rows: Tensor) -> Tensor:
    """The other rows, the nearest first."""
    order = torch.cdist(space[rows], space).argsort(dim=1)
    return order[order != rows[:, None]].view(len(rows), -1)


def aims_of(goal: Goal, seed: int = 0, rows: Tensor = ROWS) -> Tensor:
    """With no more of the ranking than the goal asks for."""
    ranking = ranking_of(SPACE, rows)[:, : goal.depth(LABELS)] if goal.needs_ranking else None
    return goal.aims(LABELS, rows, 1, torch.Generator().manual_seed(seed), ranking)


def gallery_of(aims: Tensor) -> Gallery[Tensor]:
    return Gallery(SPACE, LABELS, ROWS, LABELS[ROWS], aims)


def measured(goal: Goal, aims: Tensor, moved: Tensor = MOVED) -> dict[str, NDArray[Any]]:
    arrays = {name: value.numpy() for name, value in vars(gallery_of(aims)).items()}
    return goal.measure(moved.numpy(), SPACE[ROWS].numpy(), SPACE[aims].numpy(), Gallery(**arrays))


# --- which images they look at ---


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ["ca_plus", "qa_plus", "tma"])
def test_any_image_is_drawn_but_itself_by_robrank_only(name: str, protocol: ProtocolName) -> None:
    rows = torch.tensor([7]).expand(20_000)
    aims = aims_of(goal_of(name, protocol), rows=rows)
    assert aims.shape == (1, 20_000)
    counts = torch.bincount(aims[0], minlength=COUNT)
    assert (counts[7] == 0) == (protocol == "mdprop")
    rest = counts[torch.arange(COUNT) != 7]
    assert 40 < rest.min() < rest.max() < 140


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ["ca_minus", "qa_minus"])
def test_a_near_image_is_drawn(name: str, protocol: ProtocolName) -> None:
    goal = goal_of(name, protocol)
    assert goal.depth(LABELS) == 2
    rows = torch.tensor([7]).expand(200)
    aims = aims_of(goal, rows=rows)
    assert sorted(aims[0].unique().tolist()) == sorted(ranking_of(SPACE, rows[:1])[0, :2].tolist())


@pytest.mark.parametrize("name", ["ca_minus", "qa_minus"])
def test_below_a_hundred_images_the_nearest_is_taken(name: str) -> None:
    # ⌊0.01 · 99⌋ is 0: RobRank would draw a number below 0.
    labels, rows = LABELS[:99], ROWS[:3]
    ranking = ranking_of(SPACE[:99], rows)
    aims = get_goal(name).aims(labels, rows, 1, torch.Generator(), ranking)
    assert aims.tolist() == [ranking[:, 0].tolist()]
    with pytest.raises(ValueError, match=rf"^goal {name} as in RobRank needs 100 images, not 99$"):
        goal_of(name, "robrank").aims(labels, rows, 1, torch.Generator(), ranking)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_others(protocol: ProtocolName) -> None:
    assert aims_of(goal_of("gtt", protocol)).tolist() == [ranking_of(SPACE, ROWS)[:, 0].tolist()]
    assert aims_of(goal_of("es", protocol)).tolist() == [ROWS.tolist()]
    assert aims_of(goal_of("ltm", protocol)).shape == (0, len(ROWS))


def test_the_nearest_image_of_another_class() -> None:
    rows = torch.arange(COUNT)
    aims = aims_of(get_goal("gtm"), rows=rows)
    assert aims.equal(aims_of(get_goal("nearest_other"), rows=rows))
    for row in range(COUNT):
        others = [x for x in range(COUNT) if LABELS[x] != LABELS[row]]
        assert aims[0, row] == min(others, key=lambda x: distance(SPACE[x], SPACE[row]))


def test_robrank_takes_a_place_among_other_classes_for_a_row() -> None:
    rows = torch.arange(COUNT)
    aims = aims_of(goal_of("gtm", "robrank"), rows=rows)
    for row in range(COUNT):
        clean = [float("inf") if x == row else distance(SPACE[x], SPACE[row]) for x in range(COUNT)]
        taken = LABELS[int(np.argmin(clean))]
        others = [x for x in range(COUNT) if LABELS[x] != taken]
        assert aims[0, row] == int(np.argmin([clean[x] for x in others]))


def test_the_index_fault_by_hand() -> None:
    # On a line: the query at 0 and its class at 1 and 2; the other class at 3, 4 and 5.
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    ranking, query = torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([0])
    mended, theirs = (goal_of("gtm", p).aims(labels, query, 1, torch.Generator(), ranking) for p in PROTOCOLS)
    assert mended.tolist() == [[3]]
    # Row 3 is the first of the other class's rows; the first row is the query itself.
    assert theirs.tolist() == [[0]]
    # With the other class listed first, place and row agree.
    labels = 1 - labels
    ranking, query = torch.tensor([[4, 3, 2, 1, 0]]), torch.tensor([5])
    assert goal_of("gtm", "robrank").aims(labels, query, 1, torch.Generator(), ranking).tolist() == [[2]]


def test_the_class_fault_by_hand() -> None:
    # The query's nearest neighbour is of class 1, so RobRank flees from class 1, towards its own.
    labels = torch.tensor([0, 0, 1])
    ranking, query = torch.tensor([[2, 1]]), torch.tensor([0])
    mended, theirs = (goal_of("gtm", p).aims(labels, query, 1, torch.Generator(), ranking) for p in PROTOCOLS)
    assert mended.tolist() == [[2]]
    assert theirs.tolist() == [[1]]


# --- what they make small ---


def compared(name: str, protocol: ProtocolName, row: int, aim: int) -> list[int]:
    """The images x of a ranking goal."""
    return [x for x in range(COUNT) if protocol == "robrank" or x not in (row, aim)]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", [*RANKS, "gtt"])
def test_objectives_over_ranks_are_those_of_a_plain_loop(name: str, protocol: ProtocolName) -> None:
    goal = goal_of(name, protocol)
    aims = aims_of(goal)
    found = goal.objective(MOVED, SPACE[aims], gallery_of(aims))
    for i, (row, aim) in enumerate(zip(ROWS.tolist(), aims[0].tolist(), strict=True)):
        query, candidate = (MOVED[i], SPACE[aim]) if name[0] in "qg" else (SPACE[aim], MOVED[i])
        sign = 1 if name.endswith("plus") else -1
        terms = [
            max(0.0, sign * (distance(query, candidate) - distance(query, SPACE[x])))
            for x in compared(name, protocol, row, aim)
        ]
        # As published, a distance of 0 is compared too, and comes from products: it is off by 1e-8.
        assert float(found[i]) == pytest.approx(sum(terms) / len(terms), abs=1e-8)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_misranking_is_that_of_a_plain_loop(protocol: ProtocolName) -> None:
    goal = goal_of("ltm", protocol)
    moved = torch.nn.functional.normalize(SPACE[ROWS] + 0.05 * MOVED)
    found = goal.objective(moved, SPACE[aims_of(goal)], gallery_of(aims_of(goal)))
    for i, row in enumerate(ROWS.tolist()):
        far = max(distance(moved[i], SPACE[x]) for x in range(COUNT) if LABELS[x] != LABELS[row])
        own = [x for x in range(COUNT) if LABELS[x] == LABELS[row] and (protocol == "robrank" or x != row)]
        near = min(distance(moved[i], SPACE[x]) for x in own)
        assert float(found[i]) == pytest.approx(max(0.0, far - near))
    assert (found > 0).all()


def plane(*degrees: float) -> Tensor:
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], 1)


def hand_made(labels: list[int], space: Tensor) -> Gallery[Tensor]:
    """Row 0 is attacked, and looks at row 1."""
    numbers = torch.tensor(labels)
    return Gallery(space, numbers, torch.tensor([0]), numbers[:1], torch.tensor([[1]]))


def test_the_query_itself_in_misranking_by_hand() -> None:
    # The query has come from 0° to 50°. Its own clean image is at 0°, its class at 180°, the other at 120°.
    gallery, moved = hand_made([0, 0, 1], plane(0, 180, 120)), plane(50)
    none = torch.empty(0, 1, 2, dtype=torch.float64)
    mended, theirs = (float(goal_of("ltm", p).objective(moved, none, gallery)) for p in PROTOCOLS)
    # 70° to the other class, 130° to its own: the retrieval is wrong, there is nothing left to do.
    assert mended == 0
    # RobRank goes on fleeing from the clean image, 50° away.
    assert theirs == pytest.approx(2 * np.sin(np.deg2rad(35)) - 2 * np.sin(np.deg2rad(25)))


@pytest.mark.parametrize("labels", [[0, 1, 1], [0, 0, 0]])
def test_misranking_without_an_own_or_another_class_is_done(labels: list[int]) -> None:
    gallery, moved = hand_made(labels, plane(0, 180, 120)), plane(50).requires_grad_(True)
    found = get_goal("ltm").objective(moved, torch.empty(0, 1, 2), gallery)
    (gradient,) = torch.autograd.grad(found.sum(), moved)
    assert found.tolist() == [0]
    assert gradient.tolist() == [[0, 0]]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_mismatch_is_one_minus_the_cosine(protocol: ProtocolName) -> None:
    goal = goal_of("tma", protocol)
    aims = aims_of(goal)
    cosines = [float(MOVED[i] @ SPACE[aim]) for i, aim in enumerate(aims[0])]
    assert goal.objective(MOVED, SPACE[aims]).tolist() == pytest.approx([1 - c for c in cosines])
    assert measured(goal, aims)["target_cosine"].tolist() == pytest.approx(cosines)
    moved, space = MOVED.float().numpy(), SPACE[aims].float().numpy()
    found = goal.measure(2 * moved, moved, 3 * space)["target_cosine"]
    assert found.tolist() == pytest.approx(cosines, abs=1e-6)
    assert found.dtype == np.float32


def test_embedding_shift_needs_a_start_or_has_a_nudge() -> None:
    mended, theirs = (goal_of("es", p) for p in PROTOCOLS)
    assert (mended.needs_start, theirs.needs_start) == (True, False)
    clean = SPACE[ROWS].float().requires_grad_(True)
    slopes = [
        torch.autograd.grad(g.objective(clean, clean.detach()[None]).sum(), clean)[0]
        for g in (mended, theirs)
    ]
    assert (slopes[0] == 0).all()
    # The nudge is the same in each dimension.
    torch.testing.assert_close(slopes[1], torch.full_like(clean, -(5**-0.5)), atol=0.05, rtol=0)
    for goal in (mended, theirs):
        expected = [-distance(MOVED[i], SPACE[row]) for i, row in enumerate(ROWS.tolist())]
        assert goal.objective(MOVED, SPACE[ROWS][None]).tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ROBRANK)
def test_an_image_has_an_objective_of_its_own_and_a_finite_gradient(
    name: str, protocol: ProtocolName
) -> None:
    goal = goal_of(name, protocol)
    aims = aims_of(goal)
    for moved in (MOVED, SPACE[ROWS], MOVED.float()):
        moved = moved.clone().requires_grad_(True)
        gallery = Gallery(SPACE.to(moved.dtype), LABELS, ROWS, LABELS[ROWS], aims)
        found = goal.objective(moved, SPACE.to(moved.dtype)[aims], gallery)
        (gradient,) = torch.autograd.grad(found[2], moved)
        assert gradient.isfinite().all()
        assert (gradient[[0, 1, 3, 4, 5]] == 0).all()
        one = Gallery(gallery.embeddings, LABELS, ROWS[2:3], LABELS[ROWS[2:3]], aims[:, 2:3])
        alone = goal.objective(moved[2:3], SPACE.to(moved.dtype)[aims[:, 2:3]], one)
        torch.testing.assert_close(
            alone, found[2:3], atol=1e-3 if moved.dtype == torch.float32 else 1e-7, rtol=0
        )


# --- how far they got ---


@pytest.mark.parametrize("block", [1, 10**6])
@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", RANKS)
def test_ranks_are_those_of_a_plain_loop(
    name: str, protocol: ProtocolName, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearness, "CELLS", block)
    goal = goal_of(name, protocol)
    aims = aims_of(goal)
    found = measured(goal, aims)
    assert list(found) == ["rank_percent"]
    for i, (row, aim) in enumerate(zip(ROWS.tolist(), aims[0].tolist(), strict=True)):
        query, candidate = (MOVED[i], SPACE[aim]) if name[0] == "q" else (SPACE[aim], MOVED[i])
        images = compared(name, protocol, row, aim)
        closer = [distance(query, SPACE[x]) < distance(query, candidate) - 1e-9 for x in images]
        assert found["rank_percent"][i] == pytest.approx(100 * sum(closer) / len(images))


def test_ranks_reach_from_nothing_to_all_but_not_as_published() -> None:
    # Rows: the attacked image at 0°, the one it looks at at 90°, others at 45° and 135°.
    space = plane(0, 90, 45, 135)
    gallery = Gallery(*(x.numpy() for x in vars(hand_made([0, 1, 2, 3], space)).values()))
    found = {
        (name, protocol, angle): float(
            goal_of(name, protocol).measure(
                plane(angle).numpy(), space[:1].numpy(), space[None, 1:2].numpy(), gallery
            )["rank_percent"][0]
        )
        for name in ("ca_plus", "qa_plus")
        for protocol in PROTOCOLS
        for angle in (91, 200)
    }
    # A candidate beside the query comes first; for RobRank the query itself is before it: 1 of 4.
    assert found["ca_plus", "mdprop", 91] == 0
    assert found["ca_plus", "robrank", 91] == 25
    assert found["ca_plus", "mdprop", 200] == 100
    assert found["ca_plus", "robrank", 200] == 100
    # The query beside the candidate, and away from it: RobRank's rank of the last of 4 is 3.
    assert found["qa_plus", "mdprop", 91] == found["qa_plus", "robrank", 91] == 0
    assert found["qa_plus", "mdprop", 200] == 50
    assert found["qa_plus", "robrank", 200] == 25


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_neighbour_is_kept_among_the_nearest_four_without_the_query_itself(protocol: ProtocolName) -> None:
    goal = goal_of("gtt", protocol)
    aims = aims_of(goal)
    for seed, share in ((1, 0.0), (2, 0.1), (3, 0.2), (4, 0.3)):
        moved = torch.nn.functional.normalize(SPACE[ROWS] + share * drawn(len(ROWS), seed))
        kept = []
        for i, (row, aim) in enumerate(zip(ROWS.tolist(), aims[0].tolist(), strict=True)):
            order = sorted(set(range(COUNT)) - {row}, key=lambda x: distance(moved[i], SPACE[x]))
            kept.append(aim in order[:4])
        assert measured(goal, aims, moved)["kept"].tolist() == kept
        assert share or all(kept)


def test_copies_of_an_image_are_not_closer_than_it() -> None:
    space = drawn(1, 3).float().repeat(9, 1)
    gallery = Gallery(*(x.numpy() for x in vars(hand_made([0] * 9, space)).values()))
    found = get_goal("gtt").measure(drawn(1, 4).numpy(), space[:1].numpy(), space[None, 1:2].numpy(), gallery)
    assert found["kept"].tolist() == [True]


def test_the_rest_of_the_measures() -> None:
    es, ltm, gtm = (get_goal(name) for name in ("es", "ltm", "gtm"))
    shifts = [distance(MOVED[i], SPACE[row]) for i, row in enumerate(ROWS.tolist())]
    assert measured(es, aims_of(es))["shift"].tolist() == pytest.approx(shifts)
    assert measured(ltm, aims_of(ltm)) == {}
    assert list(measured(gtm, aims_of(gtm))) == ["approach"]


# --- protocols ---


@pytest.mark.parametrize("name", GOALS)
def test_what_is_not_robranks_is_the_same_in_its_protocol(name: str) -> None:
    assert in_protocol(get_goal(name), "mdprop") is get_goal(name)
    theirs = in_protocol(get_goal(name), "robrank")
    assert (theirs is get_goal(name)) == (name not in ROBRANK)
    assert (theirs.name, theirs.label) == (name, get_goal(name).label)


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^unknown protocol 'theirs'; known: mdprop, robrank$"):
        in_protocol(get_goal("es"), "theirs")  # type: ignore[arg-type]


def test_too_few_images_to_rank_are_refused() -> None:
    labels, rows = torch.tensor([0, 1]), torch.tensor([0])
    for name in RANKS:
        with pytest.raises(
            ValueError, match=rf"^goal {name} ranks two images among others: it needs 3, not 2$"
        ):
            get_goal(name).aims(labels, rows, 1, torch.Generator(), torch.tensor([[1]]))
    with pytest.raises(ValueError, match=r"^there is no other image to look at$"):
        get_goal("tma").aims(labels[:1], rows, 1, torch.Generator())


def test_an_image_outside_the_gallery_leaves_nothing_of_its_own_out() -> None:
    gallery = gallery_of(torch.tensor([[3, 3, 3, 3, 3, 3]]))
    outside = Gallery(SPACE, LABELS, torch.full_like(ROWS, -1), LABELS[ROWS], gallery.aim_rows)
    goal, aims = get_goal("qa_plus"), SPACE[gallery.aim_rows]
    terms = [max(0.0, distance(MOVED[0], SPACE[3]) - distance(MOVED[0], x)) for x in SPACE]
    assert float(goal.objective(MOVED, aims, outside)[0]) == pytest.approx(sum(terms) / (COUNT - 1))
    arrays = Gallery(**{name: value.numpy() for name, value in vars(outside).items()})
    found = goal.measure(MOVED.numpy(), SPACE[ROWS].numpy(), aims.numpy(), arrays)["rank_percent"]
    assert found[0] == pytest.approx(100 * sum(term > 0 for term in terms) / (COUNT - 1))
    misrank = get_goal("ltm").objective(MOVED, aims[:0], outside)
    assert misrank.equal(goal_of("ltm", "robrank").objective(MOVED, aims[:0], gallery))
