from __future__ import annotations

from dataclasses import FrozenInstanceError
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdprop.errors import ParameterError
from mdprop.methods import GOALS, METHODS, Distribution, Method, get_method, goal_of

methods = st.sampled_from(list(METHODS.values()))
batch_sizes = st.integers(1, 300)


@pytest.mark.parametrize(
    ("name", "slices", "branches", "family"),
    [
        ("standard", {"clean": 60}, ("clean",), "clean"),
        ("at", {"clean": 60, "single_target": 60}, ("clean",), "single_target"),
        ("advprop", {"clean": 60, "single_target": 60}, ("clean", "single_target"), "single_target"),
        (
            "mdprop",
            {"clean": 60, "single_target": 30, "multi_target": 30},
            ("clean", "single_target", "multi_target"),
            "multi_target",
        ),
        (
            "mdprop_unadv",
            {"clean": 60, "single_target": 20, "multi_target": 20, "unadversarial": 20},
            ("clean", "single_target", "multi_target", "unadversarial"),
            "multi_target",
        ),
    ],
)
def test_the_methods_of_the_paper(
    name: str, slices: dict[str, int], branches: tuple[str, ...], family: str
) -> None:
    method = METHODS[name]
    assert method.slices(60) == slices
    assert list(method.slices(60)) == list(slices)
    assert method.branches == branches
    assert method.family == family
    assert method.uses_multi_target is ("multi_target" in slices)
    assert [d.name for d in method.adversarial] == list(slices)[1:]


def test_every_method_is_listed_and_named_as_its_key() -> None:
    assert list(METHODS) == ["standard", "at", "advprop", "mdprop", "mdprop_unadv"]
    assert all(method.name == key for key, method in METHODS.items())


@given(methods, batch_sizes)
def test_slices_have_their_shares(method: Method, batch_size: int) -> None:
    slices = method.slices(batch_size)
    assert slices["clean"] == batch_size
    total = sum(d.share for d in method.adversarial)
    assert sum(slices.values()) - batch_size == round(total * batch_size)
    for distribution in method.adversarial:
        assert abs(slices[distribution.name] - distribution.share * batch_size) <= 1


@given(methods, batch_sizes)
def test_rows_cover_each_image_once(method: Method, batch_size: int) -> None:
    slices = method.slices(batch_size)
    rows = list(method.rows(batch_size))
    assert [d for d, _ in rows] == list(method.adversarial)
    assert {d.name: len(members) for d, members in rows} == {k: n for k, n in slices.items() if k != "clean"}
    attacked = [row for _, members in rows for row in members]
    assert attacked == (list(range(batch_size)) if method.adversarial else [])


def test_thirds_of_a_batch_that_three_does_not_divide() -> None:
    method = METHODS["mdprop_unadv"]
    assert method.slices(64) == {"clean": 64, "single_target": 21, "multi_target": 22, "unadversarial": 21}
    assert [(m[0], m[-1]) for _, m in method.rows(64)] == [(0, 20), (21, 42), (43, 63)]
    assert method.slices(1) == {"clean": 1, "single_target": 0, "multi_target": 1, "unadversarial": 0}


def test_a_share_above_one_goes_round_the_batch() -> None:
    clean = Distribution("clean", Fraction(1), "clean")
    method = Method("twice", (clean, Distribution("single_target", Fraction(5, 2), "clean")))
    ((_, members),) = method.rows(4)
    assert members == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]


@given(methods, batch_sizes)
def test_routes_send_every_row_through_a_branch(method: Method, batch_size: int) -> None:
    slices = method.slices(batch_size)
    routes = method.routes(slices)
    assert tuple(routes) == method.branches
    assert sum(routes.values()) == sum(slices.values())
    if len(method.branches) == len(method.distributions):
        assert list(routes.values()) == list(slices.values())


def test_distributions_that_share_a_branch_are_one_route() -> None:
    assert METHODS["at"].routes(METHODS["at"].slices(64)) == {"clean": 128}


def test_routes_of_some_slices_only() -> None:
    routes = METHODS["mdprop"].routes({"single_target": 5, "multi_target": 4})
    assert list(routes.items()) == [("single_target", 5), ("multi_target", 4)]
    assert METHODS["at"].routes({"single_target": 5}) == {"clean": 5}


def test_methods_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError, match="name"):
        METHODS["at"].name = "mine"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError, match="share"):
        METHODS["at"].distributions[0].share = Fraction(1, 2)  # type: ignore[misc]


def test_an_unknown_method_lists_the_known_ones() -> None:
    assert get_method("mdprop") is METHODS["mdprop"]
    with pytest.raises(
        ParameterError, match=r"^unknown method 'MDProp'; known: standard, at, advprop, mdprop, mdprop_unadv$"
    ):
        get_method("MDProp")


@pytest.mark.parametrize("goal", GOALS)
def test_the_goal_begins_the_name_of_an_input_set(goal: str) -> None:
    assert goal_of(goal) == goal_of(f"{goal}_middle") == goal
    assert goal_of(f"my_{goal}") is None


def test_clean_images_have_no_goal() -> None:
    assert goal_of("clean") is None
