from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mdprop.data.readers.entries import (
    Classes,
    Entry,
    by_class,
    entries_of,
    halve,
    hold_out,
    keep_fraction,
    make_splits,
)
from mdprop.errors import DataError


def blank(name: str) -> Image.Image:
    return Image.new("L", (2, 2), len(name))


def classes(*names: str, images: int = 2) -> Classes:
    return by_class(Entry(name, f"{name}/{i}", blank) for name in names for i in range(images))


def test_an_entry_pickles() -> None:
    entry = pickle.loads(pickle.dumps(Entry("a", "a/1", blank)))
    assert (entry.class_name, entry.path, entry.read().getpixel((0, 0))) == ("a", "a/1", 3)


def names(classes: Classes) -> dict[str, list[str]]:
    return {name: [entry.path for entry in entries] for name, entries in classes.items()}


def test_by_class_keeps_the_order() -> None:
    entries = [Entry(name, str(number), blank) for number, name in enumerate("babc")]
    assert names(by_class(entries)) == {"b": ["0", "2"], "a": ["1"], "c": ["3"]}


def test_entries_are_a_sequence_of_what_they_were_given() -> None:
    names = ["b/1.png", "b/ä.png", "b/caf\udce9.png", "b/1.png"]
    (entries,) = by_class(Entry("b", name, blank) for name in names).values()
    assert len(entries) == 4
    assert [entry.name for entry in entries] == names
    assert entries[2].path == "b/caf\\xe9.png"
    assert [entry.name for entry in entries[1:3]] == names[1:3]
    assert Entry("b", "b/1.png", blank) in entries
    assert Entry("c", "b/1.png", blank) not in entries


def test_halve_sorts_and_gives_the_odd_class_to_the_second_half() -> None:
    first, second = halve(classes("e", "b", "a", "d", "c"))
    assert (list(first), list(second)) == (["a", "b"], ["c", "d", "e"])


@given(st.integers(2, 12), st.data())
def test_hold_out_takes_the_last_classes(count: int, data: st.DataObject) -> None:
    held_out = data.draw(st.integers(0, count - 2))
    every = [f"{i:02}" for i in range(count)]
    train, val = hold_out(classes(*reversed(every)), held_out)
    assert [*reversed(train), *val] == every
    assert len(val) == held_out


@pytest.mark.parametrize("held_out", [-1, 3, 100])
def test_hold_out_names_the_key_and_the_range(held_out: int) -> None:
    with pytest.raises(
        DataError, match=rf"^dataset\.validation_classes = {held_out}: allowed are 0 to 2, as 2"
    ):
        hold_out(classes("a", "b", "c", "d"), held_out)


def test_a_class_of_one_image_is_not_held_out() -> None:
    train = {**classes("a", "c", "e"), **classes("b", "d", images=1)}
    kept, val = hold_out(train, 2)
    assert (list(kept), list(val)) == (["a", "b", "d"], ["c", "e"])
    with pytest.raises(DataError, match="allowed are 0 to 1, as 2 or more of the 4 training"):
        hold_out({**classes("e"), **classes("b", "c", "d", images=1)}, 2)


@pytest.mark.parametrize(
    ("fraction", "kept"), [(0.001, 2), (0.1, 2), (0.25, 5), (0.5, 10), (0.99, 20), (1.0, 20)]
)
def test_a_fraction_of_the_images(fraction: float, kept: int) -> None:
    train = {**classes("a", "b", images=20), **classes("c", images=1)}
    few = keep_fraction(train, fraction, "images")
    assert {name: len(entries) for name, entries in few.items()} == {"a": kept, "b": kept, "c": 1}
    for name, entries in few.items():
        assert [entry for entry in train[name] if entry in entries] == list(entries)


@pytest.mark.parametrize(("fraction", "kept"), [(0.01, 2), (0.3, 3), (0.5, 5), (1.0, 10)])
def test_a_fraction_of_the_classes(fraction: float, kept: int) -> None:
    train = classes(*"jihgfedcba", images=3)
    few = keep_fraction(train, fraction, "classes")
    assert len(few) == kept
    assert few == {name: train[name] for name in train if name in few}


@given(st.floats(0.01, 1), st.floats(0.01, 1), st.sampled_from(["images", "classes"]))
def test_a_smaller_fraction_is_part_of_a_larger_one(one: float, other: float, of: str) -> None:
    train = classes(*"abcdefgh", images=17)
    less, more = (names(keep_fraction(train, f, of)) for f in sorted((one, other)))
    assert all(set(paths) <= set(more[name]) for name, paths in less.items())


def test_what_a_class_keeps_does_not_depend_on_the_others() -> None:
    alone, among = (keep_fraction(classes(*n, images=20), 0.3, "images") for n in ("c", "abcd"))
    assert list(alone["c"]) == list(among["c"])
    few, many = (set(keep_fraction(classes(*n), 0.5, "classes")) for n in ("abcdefgh", "abcdefghijklmnop"))
    assert many & set("abcdefgh") <= few or few <= many


def test_different_classes_keep_different_images() -> None:
    kept = names(keep_fraction(classes(*"abcdef", images=20), 0.3, "images"))
    assert len({tuple(path.split("/")[1] for path in paths) for paths in kept.values()}) > 1


def test_the_splits_are_make_splits_and_so_are_their_classes() -> None:
    splits = make_splits({"test": classes("d", "c"), "val": {}, "train": classes("b", "a")})
    assert [(split, [e.path for e in entries_of(found)]) for split, found in splits.items()] == [
        ("train", ["b/0", "b/1", "a/0", "a/1"]),
        ("val", []),
        ("test", ["d/0", "d/1", "c/0", "c/1"]),
    ]


@pytest.mark.parametrize(
    ("train", "val", "test", "message"),
    [
        (classes("a", "b"), {}, classes("b", "c"), "class 'b' is in train and in test"),
        (classes("a", "b"), classes("a"), classes("c", "d"), "class 'a' is in train and in val"),
        (classes("a", "b"), {}, classes("c", "d", images=1), "class 'c' of test has 1 image; 2 or more"),
        (classes("a", "b"), classes("v", images=1), classes("c", "d"), "class 'v' of val has 1 image; 2 or"),
        (classes("a"), {}, classes("c", "d"), r"train has 1 class\(es\); 2 or more"),
        (classes("a", "b"), {}, {}, r"test has 0 class\(es\); 2 or more"),
    ],
)
def test_splits_that_retrieval_cannot_use(train: Classes, val: Classes, test: Classes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make_splits({"train": train, "val": val, "test": test})


def test_queries_share_their_classes_with_the_gallery() -> None:
    single = classes("c", "d", images=1)
    splits = make_splits(
        {"train": classes("a", "b"), "val": {}, "test": single, "gallery": {**single, **classes("e")}}
    )
    assert [e.class_name for e in entries_of(splits["gallery"])] == ["c", "d", "e", "e"]


@pytest.mark.parametrize(
    ("gallery", "message"),
    [
        (classes("c", "e"), "^class 'd' of the queries has no image in the gallery: add one, or remove it$"),
        (classes("b", "c", "d"), "class 'b' is in train and in gallery"),
    ],
)
def test_galleries_that_retrieval_cannot_use(gallery: Classes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make_splits({"train": classes("a", "b"), "val": {}, "test": classes("c", "d"), "gallery": gallery})
