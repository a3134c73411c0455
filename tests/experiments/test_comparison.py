from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from mdprop.experiments.comparison import (
    by_parameters,
    compare_experiments,
    differing_parameters,
)
from mdprop.experiments.repository import TestImages
from mdprop.statistics import difference_of_queries, difference_of_seeds, mean_of_seeds, ratio_of_queries
from tests.experiments.made import LABELS, experiment


def test_each_method_is_compared_with_its_own_in_the_first_experiment() -> None:
    first, second = experiment("HEAD", 0.5), experiment("two", 0.7)
    compared = compare_experiments([first, second])
    assert [(line.method, line.experiment.name) for line in compared.lines] == [
        ("standard", "HEAD"),
        ("standard", "two"),
        ("mdprop", "HEAD"),
        ("mdprop", "two"),
    ]
    for line in compared.lines:
        if line.experiment is first:
            assert line.against == {}
            continue
        for name in ("clean", "near", "worst_case"):
            ours, theirs = (e.results[line.method][name][0].hits for e in (second, first))
            assert line.against[name].difference == difference_of_queries(ours, theirs, LABELS)
        assert line.against["clean"].ratio is None
        near = (e.results[line.method]["near"][0].hits for e in (second, first))
        assert line.against["near"].ratio == ratio_of_queries(*near, LABELS)
    assert compared.notes == []


def test_several_seeds_are_paired_by_seed() -> None:
    first, second = (experiment(name, r, seeds=(0, 1, 2)) for name, r in (("a", 0.4), ("b", 0.5)))
    line = compare_experiments([first, second]).lines[1]
    means = [[e.results["standard"]["clean"][s].hits.mean() for s in (0, 1, 2)] for e in (second, first)]
    assert line.recall["clean"] == mean_of_seeds(means[0], 0, 1)
    assert line.against["clean"].difference == difference_of_seeds(*means)


def test_queries_are_paired_by_their_place_not_by_their_order() -> None:
    first = experiment("a", 0.4)
    shuffled = np.random.default_rng(0).permutation(200)
    second = experiment("b", 0.4, ids=shuffled)
    line = compare_experiments([first, second]).lines[1]
    assert line.against["clean"].difference.value == 0


def test_a_part_of_the_queries_is_said() -> None:
    compared = compare_experiments([experiment("a"), experiment("b", ids=np.arange(50, 200))])
    assert compared.notes == [
        "b and a are compared on the 150 of 200 queries that both have: clean, near, worst_case"
    ]


def test_queries_without_a_partner_are_said() -> None:
    pair = [experiment("a", ids=np.arange(100)), experiment("b", ids=np.arange(100, 200))]
    compared = compare_experiments(pair)
    assert all(line.against == {} for line in compared.lines)
    assert compared.notes == ["b and a have no query in common, and no comparison: clean, near, worst_case"]


def test_other_images_are_not_compared() -> None:
    other = experiment("b", images=TestImages("another"))
    compared = compare_experiments([experiment("a"), other, experiment("c")])
    assert [bool(line.against) for line in compared.lines] == [False, False, True] * 2
    assert all(line.recall for line in compared.lines)
    (note,) = compared.notes
    assert note.startswith("b and a were tested on other images")


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"digest": "two"}, False),
        ({"digest": "two", "prepared": "half"}, True),
        ({"digest": "two", "prepared": "half", "chosen": "others"}, False),
    ],
)
def test_test_images_are_the_same_where_only_their_preparation_differs(
    change: dict[str, str], same: bool
) -> None:
    images = TestImages("one", 0, "all", "whole")
    assert images.are(dataclasses.replace(images, **change)) is same  # type: ignore[arg-type]


def test_seeds_in_common_and_none() -> None:
    first = experiment("a", seeds=(0, 1))
    compared = compare_experiments([first, experiment("b", seeds=(1, 2)), experiment("c", seeds=(3,))])
    assert compared.notes == [
        "b and a are compared on the seed(s) that both have: 1",
        "c and a have no seed in common: no comparison",
    ]
    assert [bool(line.against) for line in compared.lines] == [False, True, False] * 2


def test_methods_that_one_has_and_the_other_has_not() -> None:
    pair = [experiment("a", methods=["standard"]), experiment("b", methods=["mdprop"])]
    compared = compare_experiments(pair)
    assert [(line.method, line.experiment.name) for line in compared.lines] == [
        ("standard", "a"),
        ("mdprop", "b"),
    ]
    assert compared.notes == ["b and a have no method in common: no comparison"]


def test_parameters_that_differ() -> None:
    three = [
        experiment("a", attack__targets=5, model__weights=None),
        experiment("b", attack__targets=5, attack__steps=[1, 2]),
        experiment("c", attack__targets=2, attack__steps=[1, 2]),
    ]
    assert differing_parameters(three) == ["attack.targets", "attack.steps"]
    assert differing_parameters(three[1:]) == ["attack.targets"]
    assert differing_parameters(three[:1]) == []


def test_the_order_of_a_queue_is_that_of_the_values() -> None:
    queue = [experiment(name, train__rate=rate) for name, rate in (("x", 0.1), ("y", 0.02), ("z", 10))]
    assert [e.name for e in by_parameters(queue)] == ["y", "x", "z"]
    mixed = [experiment("p", weights="b"), experiment("q"), experiment("r", weights=3)]
    assert [e.name for e in by_parameters(mixed)] == ["r", "q", "p"]


def test_clean_and_the_worst_case_come_first() -> None:
    compared = compare_experiments([experiment("a"), experiment("b")])
    assert (compared.sets, compared.headline) == (["clean", "worst_case", "near"], ["clean", "worst_case"])
