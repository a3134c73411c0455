"""How often the intervals hold the truth, where the hits of a class are alike."""

from __future__ import annotations

import math

import numpy as np
from scipy import stats

from mdprop.statistics import difference_of_queries, ratio_of_queries, share_of_queries


def clustered(rng, classes, images, *means, correlation=0.25):
    """Hits of methods with these true means, alike in a class and between methods, and the classes [Q]."""
    counts = 1 + rng.poisson(images - 1, classes)
    labels = np.repeat(np.arange(classes), counts)
    shared, own = rng.normal(size=classes), rng.normal(size=len(labels))
    hits = []
    for mean in means:
        of_class = math.sqrt(0.8) * shared + math.sqrt(0.2) * rng.normal(size=classes)
        of_query = (own + rng.normal(size=len(labels))) / math.sqrt(2)
        level = math.sqrt(correlation) * of_class[labels] + math.sqrt(1 - correlation) * of_query
        hits.append(level < stats.norm.ppf(mean))
    return (*hits, labels)


def test_coverage_of_a_share():
    rng = np.random.default_rng(0)
    runs = [clustered(rng, 40, 15, 0.3) for _ in range(400)]
    by_class = [not share_of_queries(hits, classes).excludes(0.3) for hits, classes in runs]
    by_query = [not share_of_queries(hits, np.arange(len(hits))).excludes(0.3) for hits, _ in runs]
    assert 0.92 <= np.mean(by_class) <= 0.98
    assert np.mean(by_query) < 0.8


def test_coverage_where_there_are_few_hits():
    rng = np.random.default_rng(1)
    runs = [clustered(rng, 60, 7, 0.005, correlation=0.1) for _ in range(400)]
    assert np.mean([not hits.any() for hits, _ in runs]) > 0.1
    assert np.mean([not share_of_queries(hits, classes).excludes(0.005) for hits, classes in runs]) >= 0.95


def test_coverage_of_comparisons():
    rng = np.random.default_rng(2)
    runs = [clustered(rng, 40, 15, 0.5, 0.3, correlation=0.4) for _ in range(400)]

    def covered(measure, truth, by_class):
        found = [
            measure(a, b, classes if by_class else np.arange(len(classes)), resamples=1000)
            for a, b, classes in runs
        ]
        return np.mean([not interval.excludes(truth) for interval in found])

    assert 0.92 <= covered(difference_of_queries, 0.2, True) <= 0.98
    assert 0.92 <= covered(ratio_of_queries, 0.5 / 0.3, True) <= 0.98
    assert covered(difference_of_queries, 0.2, False) < 0.9
