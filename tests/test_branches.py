from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdprop.branches import Branch, parse_branch

NAMES = st.from_regex(r"[A-Za-z0-9_-]+", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "branch"),
    [
        ("clean", Branch("clean")),
        ("near-2_x", Branch("near-2_x")),
        ("clean+25%multi_target", Branch("clean", "multi_target", 25)),
        ("a+1%b", Branch("a", "b", 1)),
        ("a+99%b", Branch("a", "b", 99)),
        ("a+50%25", Branch("a", "25", 50)),
    ],
)
def test_names_and_mixtures(text: str, branch: Branch) -> None:
    assert parse_branch(text) == branch
    assert str(branch) == text


@given(NAMES, NAMES, st.integers(1, 99))
def test_what_is_written_is_read_back(first: str, second: str, percent: int) -> None:
    assert parse_branch(str(Branch(first))).names == (first,)
    if first != second:
        mixture = Branch(first, second, percent)
        assert parse_branch(str(mixture)) == mixture
        assert mixture.names == (first, second)


@pytest.mark.parametrize(
    "text",
    [
        *("", " clean", "clean\n", "two words", "a.b", "ä"),
        *("a+b", "a+%b", "a+0%b", "a+100%b", "a+05%b", "a+2.5%b", "a+-5%b"),
        *("a+25%", "+25%b", "a+25 %b", "a + 25%b", "25%a+75%b", "a+25%b+25%c"),
    ],
)
def test_other_forms_are_refused_with_those_allowed(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"is no batch-norm branch; write .*'clean\+25%multi_target'"
    ) as error:
        parse_branch(text)
    assert len(str(error.value).splitlines()) == 1


def test_a_branch_does_not_mix_with_itself() -> None:
    with pytest.raises(ValueError, match=r"^'a\+25%a' mixes a batch-norm branch with itself; write 'a'$"):
        parse_branch("a+25%a")
