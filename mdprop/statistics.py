"""How far a mean over seeds or queries may lie from the truth: intervals of 95 %, and paired comparisons.

Seeds: another training, asked the same queries. Where there are several, Student's t of their means.
Queries: another draw of classes. The queries of a class are alike, so that classes are what is drawn.

A comparison is paired: the same queries, or the same seeds, on both sides. Each interval stands for
itself: of twenty comparisons between equals, one is expected to miss the truth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mdprop.arrays import Array, as_labels, as_vector

TAIL = 0.025
RESAMPLES = 4000

_TELLING = 5  # classes
_CHUNK = 2**20  # numbers drawn at a time
_EQUAL = 1e-12

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A value and the ends of its interval of 95 %; `high` may be infinite."""

    value: float
    low: float
    high: float

    def excludes(self, number: float) -> bool:
        return not self.low <= number <= self.high


def worst_case(hits: Array) -> NDArray[np.bool_]:
    """Which queries are right under every attack: [A, Q] bool -> [Q]. `ValueError` without an attack."""
    array = np.asarray(hits, dtype=bool)
    if array.ndim != 2 or not len(array):
        raise ValueError(f"hits must be [A, Q] with at least one attack, not {list(array.shape)}")
    return np.logical_and.reduce(array)


def mean_of_seeds(values: Array, lowest: float = -math.inf, highest: float = math.inf) -> Interval | None:
    """The mean of [S] values, one a seed: mean ± t(S - 1) · s / √S, cut at `lowest` and `highest`.

    None where the seeds do not show how they spread: one seed, or all the same value.
    """
    seeds = _seeds(values)
    if not _spread(seeds):
        return None
    mean, reach = float(seeds.mean()), _t(len(seeds) - 1) * math.sqrt(seeds.var(ddof=1) / len(seeds))
    return Interval(mean, max(mean - reach, lowest), min(mean + reach, highest))


def difference_of_seeds(ours: Array, theirs: Array) -> Interval | None:
    """The mean of ours - theirs, shares [S] of the same seeds: t of each seed's difference.

    None where these do not show how they spread, see `mean_of_seeds`.
    """
    a = _seeds(ours)
    return mean_of_seeds(a - _seeds(theirs, len(a)), -1.0, 1.0)


def ratio_of_seeds(ours: Array, theirs: Array) -> Interval | None:
    """The mean of ours over the mean of theirs, shares [S] of the same seeds: Fieller's interval.

    Not the mean of log ratios: this is the ratio of the table's own means, and a seed of 0 is a number
    like any other. It holds the r with |a - r·b| ≤ t(S - 1) · s(a - r·b) / √S, where a, b are the means.
    Where b cannot be told from 0, `high` is infinite, and `low` 0 where small ratios fit too.

    None where theirs is 0 throughout, and where ours is the same multiple of theirs in every seed.
    Source: Fieller, "Some problems in interval estimation", JRSS B 16 (1954).
    """
    a = _seeds(ours)
    b = _seeds(theirs, len(a))
    if not (b.any() and _spread(a - a.mean() / b.mean() * b)):
        return None
    (va, vab), (_, vb) = np.cov(a, b) / len(a)
    t = _t(len(a) - 1) ** 2
    squared, mixed, free = b.mean() ** 2 - t * vb, a.mean() * b.mean() - t * vab, a.mean() ** 2 - t * va
    value, root = float(a.mean() / b.mean()), float(mixed**2 - squared * free)
    if squared == 0 or root <= 0:
        return Interval(value, 0.0, math.inf)
    low, high = sorted(float((mixed + sign * math.sqrt(root)) / squared) for sign in (-1, 1))
    if squared < 0:  # all but what lies between the two
        return Interval(value, high if low < 0 < high else 0.0, math.inf)
    return Interval(value, max(low, 0.0), high)


def share_of_queries(hits: Array, classes: Array) -> Interval:
    """The mean of hits [Q], in [0, 1], of queries of these classes [Q]: Korn and Graubard's interval.

    Clopper and Pearson's, exact for independent queries, of as many as the Q are worth:
    Q / d · (t(Q - 1) / t(C - 1))², C the number of classes. The design effect d is the variance of the
    mean over classes, C / (C - 1) · Σ (s - n·mean)² / Q² (s hits among the n queries of a class), over
    that of independent queries, mean · (1 - mean) / Q; at least 1.

    Where nothing shows d (one class, all hits, no hit), a class counts as one query: d = Σn² / Q. None of
    Q then gives no [0, 0] but about [0, 3.7 / C]: classes that are found with probability p have
    no hit in C of them with at most (1 - p)^C, however alike their queries are.

    Simulated with 20 to 200 classes of 7 to 30 queries whose hits correlate by 0.05 or 0.3, it covers the
    truth in 92 to 97 % where 10 to 93 % are hits; a bootstrap over classes in 86 to 96 % by percentiles, in
    89 to 96 % by BCa; a binomial interval, blind to classes, in 44 to 91 %. Where 1 % are hits: 84 to 100,
    55 to 92, 67 to 96 and 43 to 89 %.

    Source: Korn and Graubard, "Confidence intervals for proportions with small expected number of positive
    counts estimated from survey data", Survey Methodology 24 (1998).
    """
    counts, sums = _by_class(classes, hits)
    return _share(counts, sums)


def difference_of_queries(
    ours: Array, theirs: Array, classes: Array, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """The mean of ours - theirs, hits [Q] in [0, 1] of the same queries, of these classes [Q].

    A bootstrap over classes: so many are drawn with replacement, with all their queries. Its percentiles
    are those of 95 % by the normal distribution after widening by √(C / (C - 1)) · t(C - 1) / 1.96, what
    percentiles lack with few classes (Hesterberg, "What teachers should know about the bootstrap", The
    American Statistician 69, 2015).

    Where fewer than five classes differ from the commonest difference, a bootstrap knows too little (equal
    results: [0, 0]). Then the shares of queries won and lost have intervals as in `share_of_queries`, and
    their difference is put together by squares (Zou and Donner, Statistics in Medicine 27, 2008).
    """
    counts, a, b, won, lost = _by_class(classes, ours, theirs, _won(ours, theirs), _won(theirs, ours))
    value = float((a - b).sum() / counts.sum())
    if _telling((a - b) / counts) < _TELLING:
        w, v = _share(counts, won), _share(counts, lost)
        low = value - math.hypot(w.value - w.low, v.high - v.value)
        return Interval(value, low, value + math.hypot(w.high - w.value, v.value - v.low))
    drawn, difference = _resample(np.stack([counts, a - b]), resamples, seed)
    below, above = _percentiles(len(counts))
    means = difference / drawn
    return Interval(value, _quantile(means, below), _quantile(means, above))


def ratio_of_queries(
    ours: Array, theirs: Array, classes: Array, *, resamples: int = RESAMPLES, seed: int = 0
) -> Interval | None:
    """The mean of ours over the mean of theirs, hits [Q] in [0, 1] of the same queries; None: theirs is 0.

    The bootstrap of `difference_of_queries`; a draw without hits of theirs counts as an infinite ratio.

    Where theirs has hits in fewer than five classes, or fewer than five differ from the commonest
    ours - ratio · theirs, it is put together from the intervals of the two shares, as if these were
    independent, which is on the safe side (Donner and Zou, Statistical Methods in Medical Research 21, 2012).
    """
    counts, a, b = _by_class(classes, ours, theirs)
    if not b.any():
        return None
    value = float(a.sum() / b.sum())
    if min(_telling((a - value * b) / counts), int(np.count_nonzero(b))) < _TELLING:
        return _quotient(_share(counts, a), _share(counts, b))
    above, below = _resample(np.stack([a, b]), resamples, seed)
    ratios = np.divide(above, below, out=np.full(resamples, math.inf), where=below > 0)
    first, last = _percentiles(len(counts))
    return Interval(value, _quantile(ratios, first), _quantile(ratios, last))


def _seeds(values: Array, count: int | None = None) -> Floats:
    return as_vector(values, count, "seeds").astype(np.float64)


def _spread(seeds: Floats) -> bool:
    return len(seeds) > 1 and bool(np.ptp(seeds) > _EQUAL)


def _t(degrees: float) -> float:
    """What Student's t with these degrees of freedom exceeds with probability `TAIL`."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 1 - TAIL))


def _by_class(classes: Array, *hits: Array) -> list[Floats]:
    """[C] each: how many queries a class has, and the sum over them of each of the hits."""
    labels = as_labels(classes, name="classes")
    columns = [np.ones(len(labels))]
    for values in hits:
        column = as_vector(values, len(labels), "hits").astype(np.float64)
        if not (np.abs(column - 0.5) <= 0.5).all():
            raise ValueError("hits must lie in [0, 1]")
        columns.append(column)
    index = np.unique(labels, return_inverse=True)[1]
    return [np.bincount(index, column).astype(np.float64) for column in columns]


def _won(ours: Array, theirs: Array) -> Floats:
    return np.maximum(np.asarray(ours, np.float64) - np.asarray(theirs, np.float64), 0.0)


def _share(counts: Floats, sums: Floats) -> Interval:
    """`share_of_queries` from each class's number of queries and of hits: [C], [C]."""
    from scipy.special import betaincinv

    queries, classes = counts.sum(), len(counts)
    value = float(sums.sum() / queries)
    if classes == 1 or value in (0.0, 1.0):
        worth = queries**2 / np.square(counts).sum()
    else:
        variance = classes / (classes - 1) * np.square(sums - value * counts).sum() / queries**2
        effect = max(variance / (value * (1 - value) / queries), 1.0)
        worth = queries / effect * (_t(queries - 1) / _t(classes - 1)) ** 2
    hits, misses = value * worth, (1 - value) * worth
    low = float(betaincinv(hits, misses + 1, TAIL)) if hits > 0 else 0.0
    high = float(betaincinv(hits + 1, misses, 1 - TAIL)) if misses > 0 else 1.0
    return Interval(value, low, high)


def _quotient(ours: Interval, theirs: Interval) -> Interval:
    """The ratio of two independent shares: equation 9 of Donner and Zou, where no term is 0 / 0."""
    a, b = ours.value, theirs.value

    def root(end: float, other: float) -> float:
        return math.sqrt(max((a * b) ** 2 - end * other * (2 * a - end) * (2 * b - other), 0.0))

    low = ours.low * (2 * a - ours.low) / (a * b + root(ours.low, theirs.high)) if a else 0.0
    divisor = theirs.low * (2 * b - theirs.low)
    high = (a * b + root(ours.high, theirs.low)) / divisor if divisor else math.inf
    return Interval(a / b, low, high)


def _telling(means: Floats) -> int:
    """How many classes have another mean than the commonest."""
    return len(means) - int(np.unique(np.round(means, 12), return_counts=True)[1].max())


def _resample(sums: Floats, resamples: int, seed: int) -> Floats:
    """Sums over as many classes as there are, drawn with replacement: [K, C] -> [K, resamples].

    Classes with the same sums are drawn as one kind: where hits are counted, there are few kinds.
    """
    kinds, counts = np.unique(sums, axis=1, return_counts=True)
    classes = counts.sum()
    rng = np.random.default_rng(seed)
    step = max(_CHUNK // len(counts), 1)
    sizes = [min(step, resamples - start) for start in range(0, resamples, step)]
    parts = [rng.multinomial(classes, counts / classes, size=size) @ kinds.T for size in sizes]
    return np.concatenate(parts).T


def _percentiles(classes: int) -> tuple[float, float]:
    from scipy.special import ndtr

    tail = float(ndtr(-math.sqrt(classes / (classes - 1)) * _t(classes - 1)))
    return tail, 1 - tail


def _quantile(values: Floats, share: float) -> float:
    """One of the values: between others nothing infinite could be interpolated."""
    return float(np.quantile(values, share, method="inverted_cdf"))
