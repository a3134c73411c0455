from __future__ import annotations

import pickle
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mdprop.data.entries import Classes, Entry, check_splits, halve, hold_out, make_splits
from mdprop.errors import DataError

BLANK = partial(Image.new, "L", (2, 2))


def classes(*names: str, images: int = 2) -> Classes:
    return {name: [Entry(name, f"{name}/{i}", BLANK) for i in range(images)] for name in names}


def test_an_entry_pickles() -> None:
    entry = pickle.loads(pickle.dumps(Entry("a", "a/1", BLANK)))
    assert (entry.class_name, entry.path, entry.read().size) == ("a", "a/1", (2, 2))


def test_halve_sorts_and_gives_the_odd_class_to_the_second_half() -> None:
    first, second = halve(classes("e", "b", "a", "d", "c"))
    assert (list(first), list(second)) == (["a", "b"], ["c", "d", "e"])


@given(st.integers(2, 12), st.data())
def test_hold_out_takes_the_last_classes(count: int, data: st.DataObject) -> None:
    held_out = data.draw(st.integers(0, count - 2))
    names = [f"{i:02}" for i in range(count)]
    train, val = hold_out(classes(*reversed(names)), held_out, "datasets.x")
    assert list(train) + list(val) == names
    assert len(val) == held_out


@pytest.mark.parametrize("held_out", [-1, 3, 100])
def test_hold_out_names_the_key_and_the_range(held_out: int) -> None:
    with pytest.raises(
        DataError, match=rf"^datasets\.x\.validation_classes = {held_out}: allowed are 0 to 2,"
    ):
        hold_out(classes("a", "b", "c", "d"), held_out, "datasets.x")


def test_make_splits_sorts_by_class() -> None:
    splits = make_splits(classes("b", "a"), {}, classes("d", "c"))
    assert {s: [e.path for e in entries] for s, entries in splits.items()} == {
        "train": ["a/0", "a/1", "b/0", "b/1"],
        "val": [],
        "test": ["c/0", "c/1", "d/0", "d/1"],
    }


@pytest.mark.parametrize(
    ("train", "val", "test", "message"),
    [
        (classes("a", "b"), {}, classes("b", "c"), "class 'b' is in train and in test"),
        (classes("a", "b"), classes("a"), classes("c", "d"), "class 'a' is in train and in val"),
        (classes("a", "b"), {}, classes("c", "d", images=1), "class 'c' of test has 1 image; 2 or more"),
        (classes("a"), {}, classes("c", "d"), r"train has 1 class\(es\); 2 or more"),
        (classes("a", "b"), {}, {}, r"test has 0 class\(es\); 2 or more"),
    ],
)
def test_splits_that_retrieval_cannot_use(train: Classes, val: Classes, test: Classes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make_splits(train, val, test)


def test_check_splits_returns_what_it_got() -> None:
    splits = make_splits(classes("a", "b"), classes("c"), classes("d", "e"))
    assert check_splits(splits) is splits
