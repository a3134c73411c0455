from __future__ import annotations

from dataclasses import FrozenInstanceError
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mdprop.errors import ParameterError
from mdprop.methods import METHODS, Method, Slice, get_method
from tests.helpers import make_method

methods = st.sampled_from(list(METHODS.values()))
batch_sizes = st.integers(1, 300)


def slices(method: Method, batch_size: int) -> dict[str, int]:
    return {part.name: n for part, n in zip(method.slices, method.sizes(batch_size), strict=True)}


@pytest.mark.parametrize(
    ("name", "sizes", "branches", "family"),
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
    name: str, sizes: dict[str, int], branches: tuple[str, ...], family: str
) -> None:
    method = METHODS[name]
    assert list(slices(method, 60).items()) == list(sizes.items())
    assert method.branches == branches
    assert method.family == family
    assert [part.goal for part in method.adversarial] == [part.name for part in method.adversarial]


def test_the_nearest_targets_take_the_place_of_many() -> None:
    mdprop, near = METHODS["mdprop"], METHODS["mdprop_near"]
    assert near.branches == mdprop.branches
    assert near.sizes(60) == mdprop.sizes(60)
    assert [part.goal for part in near.adversarial] == ["single_target", "nearest_other"]
    assert near.family == METHODS["at_near"].family == "single_target"
    assert METHODS["at_near"].branches == ("clean",)
    assert METHODS["at_near"].sizes(60) == METHODS["at"].sizes(60)


def test_every_method_is_listed_and_named_as_its_key() -> None:
    assert list(METHODS) == ["standard", "at", "advprop", "mdprop", "mdprop_unadv", "at_near", "mdprop_near"]
    assert all(method.name == key for key, method in METHODS.items())


@given(methods, batch_sizes)
def test_slices_have_their_shares(method: Method, batch_size: int) -> None:
    sizes = slices(method, batch_size)
    assert sizes["clean"] == batch_size
    total = sum(part.share for part in method.adversarial)
    assert sum(sizes.values()) - batch_size == round(total * batch_size)
    for part in method.adversarial:
        assert abs(sizes[part.name] - part.share * batch_size) <= 1


@given(methods, batch_sizes)
def test_members_cover_each_image_once(method: Method, batch_size: int) -> None:
    members = method.members(batch_size)
    assert [len(rows) for rows in members] == method.sizes(batch_size)[1:]
    attacked = [row for rows in members for row in rows]
    assert attacked == (list(range(batch_size)) if method.adversarial else [])


def test_thirds_of_a_batch_that_three_does_not_divide() -> None:
    method = METHODS["mdprop_unadv"]
    assert method.sizes(64) == [64, 21, 22, 21]
    assert [(rows[0], rows[-1]) for rows in method.members(64)] == [(0, 20), (21, 42), (43, 63)]
    assert method.sizes(1) == [1, 0, 1, 0]


def test_shares_that_add_up_to_more_than_one_go_round_the_batch() -> None:
    method = make_method(
        "twice", {"goal": "single_target", "share": "3/4"}, {"goal": "multi_target", "share": "3/4"}
    )
    assert method.members(4) == [[0, 1, 2], [3, 0, 1]]


@pytest.mark.parametrize(
    ("given", "name", "branch"),
    [
        ({"goal": "single_target"}, "single_target", "single_target"),
        ({"goal": "single_target", "branch": "near"}, "near", "near"),
        ({"goal": "single_target", "branch": "clean"}, "single_target", "clean"),
        ({"goal": "untargeted", "branch": "near", "name": "flight"}, "flight", "near"),
    ],
)
def test_what_a_slice_leaves_out(given: dict[str, Any], name: str, branch: str) -> None:
    part = Slice.model_validate(given)
    assert (part.name, part.branch, part.share, part.epsilon) == (name, branch, Fraction(1), None)


@pytest.mark.parametrize(("share", "value"), [("1/3", Fraction(1, 3)), (0.25, Fraction(1, 4)), (1, 1)])
def test_a_share_is_a_fraction_or_a_number(share: Any, value: Fraction) -> None:
    assert Slice.model_validate({"goal": "single_target", "share": share}).share == value


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"goal": "multitarget"}, "unknown goal; known: single_target, multi_target"),
        ({"goal": "clean"}, r"unknown goal; .*\(clean images are always there\)"),
        ({"goal": "single_target", "share": "half"}, "a share from 0.001 to 1, such as 1/2 or 0.5"),
        ({"goal": "single_target", "share": 0}, "a share from 0.001 to 1"),
        ({"goal": "single_target", "share": "3/2"}, "a share from 0.001 to 1"),
        ({"goal": "single_target", "branch": "a.b"}, "pattern"),
        ({"goal": "single_target", "targets": 3}, "looks at one image; leave it out"),
        ({"goal": "multi_target", "targets": 0}, "a whole number from 1 to 1000 is needed"),
        ({"goal": "single_target", "epsilon": -0.1}, "a number from 0 to 10000"),
        ({"goal": "single_target", "steps": 3}, "Extra inputs"),
        ({"goal": "from_centroid"}, "compares with a whole gallery, which a batch has not"),
        ({"goal": "qa_minus"}, "compares with a whole gallery, which a batch has not"),
        ({"goal": "single_target", "through": "a.b"}, "pattern"),
        ({"goal": "single_target", "pull": -1}, "a number from 0 to 1000 is needed"),
        ({"goal": "single_target", "pull": "much"}, "a number from 0 to 1000 is needed"),
    ],
)
def test_slices_that_cannot_be(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Slice.model_validate(given)


def test_examples_are_made_through_a_branch_of_the_method() -> None:
    through = {"goal": "single_target", "share": "1/2", "through": "other"}
    with pytest.raises(
        ParameterError,
        match=r"^method 'm': slice 'single_target' is made through 'other', none of its branches; choose "
        r"from clean, single_target, or leave `through` out$",
    ):
        make_method("m", through)
    method = make_method("m", through, {"goal": "nearest_other", "branch": "other"})
    assert [part.attacked_branch for part in method.slices] == ["clean", "other", "other"]
    assert (method.branches, method.family) == (("clean", "single_target", "other"), "single_target")


def test_two_slices_of_one_name_are_refused() -> None:
    twice = {"goal": "single_target", "share": "1/2", "branch": "clean"}
    with pytest.raises(
        ParameterError,
        match=r"^method 'm' has two slices named 'single_target': give each its own name or branch$",
    ):
        make_method("m", twice, twice)
    assert make_method("m", twice, {**twice, "name": "again"}).sizes(8) == [8, 4, 4]


def test_slices_of_one_branch_are_put_side_by_side() -> None:
    method = make_method(
        "m", {"goal": "multi_target"}, {"goal": "single_target", "branch": "clean"}, {"goal": "untargeted"}
    )
    assert [part.branch for part in method.slices] == ["clean", "clean", "multi_target", "untargeted"]
    apart = (method.slices[0], method.slices[2], method.slices[1])
    with pytest.raises(ParameterError, match=r"^method 'm': slices of one branch must follow each other$"):
        Method("m", apart)


@pytest.mark.parametrize(
    ("goals", "family"),
    [
        ([], "clean"),
        (["untargeted"], "single_target"),
        (["unadversarial", "single_target"], "single_target"),
        (["untargeted", "multi_target"], "multi_target"),
    ],
)
def test_the_family_of_a_method_of_ones_own(goals: list[str], family: str) -> None:
    assert make_method("m", *({"goal": goal} for goal in goals)).family == family


def test_methods_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError, match="name"):
        METHODS["at"].name = "mine"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        METHODS["at"].slices[0].share = Fraction(1, 2)


def test_an_unknown_method_lists_the_known_ones() -> None:
    assert get_method("mdprop") is METHODS["mdprop"]
    with pytest.raises(
        ParameterError,
        match=r"^unknown method 'MDProp'; known: standard, at, advprop, mdprop, mdprop_unadv, "
        r"at_near, mdprop_near$",
    ):
        get_method("MDProp")
