from __future__ import annotations

import math
from itertools import combinations_with_replacement

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mdprop import statistics
from mdprop.statistics import (
    Interval,
    difference_of_queries,
    difference_of_seeds,
    mean_of_seeds,
    ratio_of_queries,
    ratio_of_seeds,
    share_of_queries,
    worst_case,
)

queries = st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 12)), min_size=1, max_size=60)


def ends(interval):
    return pytest.approx((interval.low, interval.high))


def drawn(seed, classes, images, *means):
    """Hits of methods with these means, and the classes [Q], which have `images` on average."""
    rng = np.random.default_rng(seed)
    hits = [rng.random(classes * images) < mean for mean in means]
    return *hits, rng.integers(classes, size=classes * images)


def test_worst_case_is_right_under_every_attack():
    rng = np.random.default_rng(0)
    hits = rng.random((3, 50)) < 0.7
    expected = [all(hits[attack][q] for attack in range(3)) for q in range(50)]
    assert worst_case(hits).tolist() == expected
    assert worst_case([[True, False]]).tolist() == [True, False]


@pytest.mark.parametrize("hits", [np.empty((0, 3)), [True, False]])
def test_worst_case_needs_an_attack(hits):
    with pytest.raises(ValueError, match=r"hits must be \[A, Q\] with at least one attack"):
        worst_case(hits)


def test_seeds_by_hand_and_by_scipy():
    found = mean_of_seeds([0.7, 0.8, 0.9])
    assert found.value == pytest.approx(0.8)
    assert (found.low, found.high) == pytest.approx((0.8 - 0.24841, 0.8 + 0.24841), abs=1e-5)  # 4.3027·0.1/√3
    assert mean_of_seeds([0.7, 0.8, 0.9], 0, 1).high == 1
    values = np.random.default_rng(0).normal(size=7)
    assert ends(mean_of_seeds(values)) == tuple(stats.ttest_1samp(values, 0).confidence_interval())


def test_differences_of_seeds_are_paired():
    rng = np.random.default_rng(1)
    theirs = rng.uniform(0.3, 0.6, 5)
    ours = theirs + rng.normal(0.05, 0.01, 5)
    found = difference_of_seeds(ours, theirs)
    assert ends(found) == tuple(stats.ttest_rel(ours, theirs).confidence_interval())
    assert found.excludes(0)
    assert not difference_of_seeds(ours, rng.permutation(theirs)).excludes(0)


def test_seeds_that_show_no_spread_have_no_interval():
    assert mean_of_seeds([0.5]) is None
    assert mean_of_seeds([0.0, 0.0, 0.0]) is None
    assert difference_of_seeds([0.8, 0.5], [0.7, 0.4]) is None
    assert ratio_of_seeds([0.5], [0.25]) is None
    assert ratio_of_seeds([0.5, 0.25], [0.0, 0.0]) is None
    assert ratio_of_seeds([0.6, 0.3], [0.4, 0.2]) is None


@pytest.mark.parametrize(("spread", "bounded"), [(0.01, True), (0.04, True), (0.12, False), (0.3, False)])
def test_ratio_of_seeds_holds_what_a_test_does_not_refuse(spread, bounded):
    rng = np.random.default_rng(3)
    theirs = np.abs(rng.normal(0.2, spread, 4))
    ours = np.abs(rng.normal(0.6, spread, 4))
    found = ratio_of_seeds(ours, theirs)
    tried = np.linspace(0, 40, 8001)
    kept = tried[stats.ttest_1samp(ours - tried[:, None] * theirs, 0, axis=1).pvalue >= 0.05]
    assert found.value == pytest.approx(ours.mean() / theirs.mean())
    assert found.low == pytest.approx(kept[0], abs=0.006)
    assert math.isfinite(found.high) == bounded
    assert kept[-1] == pytest.approx(found.high if bounded else 40, abs=0.006)


def test_ratio_of_seeds_with_a_reference_that_never_changes():
    mean = mean_of_seeds([0.4, 0.5, 0.45])
    found = ratio_of_seeds([0.4, 0.5, 0.45], [0.25, 0.25, 0.25])
    assert (found.low, found.high) == pytest.approx((4 * mean.low, 4 * mean.high))


def test_ratio_of_seeds_with_a_seed_of_zero():
    found = ratio_of_seeds([0.5, 0.52, 0.51], [0.0, 0.02, 0.01])
    assert found.value == pytest.approx(51)
    assert (0 < found.low < 51) and found.high == math.inf
    nothing = ratio_of_seeds([0.0, 0.1], [0.1, 0.0])
    assert nothing == Interval(1.0, 0.0, math.inf)


def test_independent_queries_have_clopper_and_pearsons_interval():
    rng = np.random.default_rng(0)
    for hits in (rng.random(80) < 0.3, np.arange(50) < 1, np.arange(50) < 49):
        exact = stats.binomtest(int(hits.sum()), len(hits)).proportion_ci()
        found = share_of_queries(hits, np.arange(len(hits)))
        assert found.value == hits.mean()
        # The variance over classes has the divisor C - 1.
        assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=0.003)


def test_share_by_loops():
    hits, classes = np.array([1, 1, 0, 1, 1, 0, 0, 0, 1, 0]), np.array([4, 4, 4, 4, 4, 7, 7, 7, 9, 9])
    mean, squares = 0.5, 0.0
    for label in (4, 7, 9):
        squares += sum(h - mean for h, c in zip(hits, classes, strict=True) if c == label) ** 2
    effect = (3 / 2 * squares / 100) / (mean * (1 - mean) / 10)
    assert effect == pytest.approx(2.7)
    worth = 10 / effect * (stats.t.ppf(0.975, 9) / stats.t.ppf(0.975, 2)) ** 2
    low = stats.beta.ppf(0.025, worth / 2, worth / 2 + 1)
    found = share_of_queries(hits, classes)
    assert (found.low, found.high) == pytest.approx((low, 1 - low))


@pytest.mark.parametrize("classes", [1, 20, 300])
def test_none_or_all_of_some_classes(classes):
    labels = np.arange(classes).repeat(6)
    exact = stats.binomtest(0, classes).proportion_ci()
    none, every = (share_of_queries(np.full(6 * classes, hit), labels) for hit in (False, True))
    assert (none.value, none.low, none.high) == pytest.approx((0, 0, exact.high))
    assert (every.value, every.low, every.high) == pytest.approx((1, 1 - exact.high, 1))


def test_one_query_and_one_class_say_next_to_nothing():
    assert share_of_queries([True], [5]) == Interval(1.0, pytest.approx(0.025), 1.0)
    found = share_of_queries([True, False] * 50, [5] * 100)
    assert found.low < 0.02 and found.high > 0.98


def test_classes_that_are_all_the_same_are_worth_no_more_than_independent_queries():
    found = share_of_queries([True, False] * 50, np.arange(100) // 2)
    worth = 100 * (stats.t.ppf(0.975, 99) / stats.t.ppf(0.975, 49)) ** 2
    assert found.low == pytest.approx(stats.beta.ppf(0.025, worth / 2, worth / 2 + 1))


def test_a_class_of_most_queries_leaves_few_to_learn_from():
    even = share_of_queries(np.zeros(100), np.arange(100) % 10)
    uneven = share_of_queries(np.zeros(100), np.maximum(np.arange(100) - 90, 0))
    assert uneven.high > 2 * even.high


@given(queries)
def test_share_is_in_order_whatever_the_names_and_the_order(results):
    hits, _, classes = zip(*results, strict=True)
    found = share_of_queries(hits, classes)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high
    missed = share_of_queries(np.logical_not(hits), classes)
    assert (missed.low, missed.high) == pytest.approx((1 - found.high, 1 - found.low), abs=1e-9)
    again = share_of_queries(torch.tensor(hits[::-1]), torch.tensor(classes[::-1]) * -3)
    assert ends(again) == (found.low, found.high)


@settings(max_examples=40)
@given(queries)
def test_comparisons_are_in_order_and_go_both_ways(results):
    ours, theirs, classes = zip(*results, strict=True)
    forth = difference_of_queries(ours, theirs, classes, resamples=300)
    back = difference_of_queries(theirs, ours, classes, resamples=300)
    assert -1 <= forth.low <= forth.value <= forth.high <= 1 and forth.low < forth.high
    assert forth.value == pytest.approx(-back.value)
    ratio = ratio_of_queries(ours, theirs, classes, resamples=300)
    assert (ratio is None) == (not any(theirs))
    if ratio:
        assert 0 <= ratio.low <= ratio.value <= ratio.high and ratio.low < ratio.high


def every_draw(statistic, classes):
    """Of all ways to draw as many classes as there are: the statistic, and how many orders have it."""
    rows = [np.flatnonzero(classes == name) for name in np.unique(classes)]
    draws = []
    for draw in combinations_with_replacement(range(len(rows)), len(rows)):
        orders = math.factorial(len(rows)) // math.prod(math.factorial(draw.count(c)) for c in set(draw))
        draws.append((statistic(np.concatenate([rows[c] for c in draw])), orders))
    return draws


def widened(draws, classes):
    tail = stats.norm.cdf(-math.sqrt(classes / (classes - 1)) * stats.t.ppf(0.975, classes - 1))
    values, ways = zip(*sorted(draws), strict=True)
    reached = np.cumsum(ways) / sum(ways)
    return tuple(values[np.searchsorted(reached, share)] for share in (tail, 1 - tail))


def test_comparisons_by_every_draw_of_seven_classes():
    ours, theirs, classes = drawn(4, 7, 30, 0.7, 0.4)
    draws = every_draw(lambda rows: ours[rows].mean() - theirs[rows].mean(), classes)
    assert sum(ways for _, ways in draws) == 7**7
    found = difference_of_queries(ours, theirs, classes, resamples=10**5)
    assert found.value == pytest.approx(ours.mean() - theirs.mean())
    assert (found.low, found.high) == pytest.approx(widened(draws, 7), abs=0.003)
    draws = every_draw(lambda rows: ours[rows].mean() / theirs[rows].mean(), classes)
    found = ratio_of_queries(ours, theirs, classes, resamples=10**5)
    assert found.value == pytest.approx(ours.mean() / theirs.mean())
    assert (found.low, found.high) == pytest.approx(widened(draws, 7), abs=0.02)


def test_how_many_are_drawn_at_a_time_does_not_matter(monkeypatch):
    ours, theirs, classes = drawn(4, 12, 6, 0.7, 0.4)
    whole = difference_of_queries(ours, theirs, classes), ratio_of_queries(ours, theirs, classes)
    monkeypatch.setattr(statistics, "_CHUNK", 100)
    assert whole == (difference_of_queries(ours, theirs, classes), ratio_of_queries(ours, theirs, classes))


def test_a_class_for_every_query_is_scipys_bootstrap():
    rng = np.random.default_rng(2)
    ours, theirs = rng.random(300) < 0.7, rng.random(300) < 0.5
    found = difference_of_queries(ours, theirs, np.arange(300))
    peer = stats.bootstrap(
        (ours.astype(float) - theirs,), np.mean, n_resamples=4000, method="percentile", rng=rng
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((peer.low, peer.high), abs=0.01)


def test_equal_results_differ_by_what_so_many_classes_can_hide():
    hits, classes = np.arange(120) % 3 == 0, np.arange(120) // 6
    most = stats.binomtest(0, 20).proportion_ci().high
    assert difference_of_queries(hits, hits, classes) == Interval(
        0.0, pytest.approx(-most), pytest.approx(most)
    )
    ratio = ratio_of_queries(hits, hits, classes)
    assert ratio.value == 1 and ratio.low < 1 < ratio.high


def test_few_differences_are_counted_exactly():
    """Two queries of 100 won and none lost, each of its own class."""
    theirs = np.arange(100) < 40
    ours = np.arange(100) < 42
    found = difference_of_queries(ours, theirs, np.arange(100))
    won, lost = (stats.binomtest(k, 100).proportion_ci() for k in (2, 0))
    expected = (0.02 - math.hypot(0.02 - won.low, lost.high), won.high)
    assert (found.low, found.high) == pytest.approx(expected, abs=0.002)


def test_all_against_nothing():
    ones, zeros, classes = np.ones(80), np.zeros(80), np.arange(80) // 2
    found = difference_of_queries(ones, zeros, classes)
    assert found.value == found.high == 1
    assert 0.85 < found.low < 0.95
    assert ratio_of_queries(ones, zeros, classes) is None
    least = 1 - stats.binomtest(0, 40).proportion_ci().high
    none = ratio_of_queries(zeros, ones, classes)
    assert (none.value, none.low) == (0, 0)
    assert none.high == pytest.approx((1 - least) / math.sqrt(least * (2 - least)))


def test_a_reference_that_finds_next_to_nothing_has_no_largest_ratio():
    ours, classes = np.arange(100) % 2 == 0, np.arange(100) // 5
    few = ratio_of_queries(ours, np.arange(100) == 0, classes)
    assert few.value == 50 and 5 < few.low < 20 and few.high > 1000
    some = np.isin(np.arange(100), [0, 20, 40, 60, 80])  # a draw misses all five in one of 300
    found = ratio_of_queries(ours, some, classes)
    assert found.value == 10 and 4 < found.low < 7 and 30 < found.high < math.inf


def test_pairing_narrows_the_difference():
    theirs, gained, classes = drawn(5, 50, 10, 0.5, 0.1)
    ours = theirs | gained
    paired = difference_of_queries(ours, theirs, classes)
    first, second = share_of_queries(ours, classes), share_of_queries(theirs, classes)
    assert paired.excludes(0)
    assert first.low < second.high
    assert paired.high - paired.low < 0.5 * (first.high - first.low)


def test_the_seed_decides():
    ours, theirs, classes = drawn(6, 30, 5, 0.6, 0.4)
    found = [difference_of_queries(ours, theirs, classes, seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_refuses():
    with pytest.raises(ValueError, match="hits has 2 entries for 3 rows"):
        share_of_queries([True, False], [0, 1, 1])
    with pytest.raises(ValueError, match=r"hits must lie in \[0, 1\]"):
        difference_of_queries([0.5, 2.0], [0, 1], [0, 1])
    with pytest.raises(ValueError, match=r"hits must lie in \[0, 1\]"):
        share_of_queries([0.5, math.nan], [0, 1])
    with pytest.raises(ValueError, match=r"classes must be \[N\] with at least one entry"):
        share_of_queries([], [])
    with pytest.raises(ValueError, match="seeds has 1 entries for 2 rows"):
        ratio_of_seeds([0.1, 0.2], [0.1])
