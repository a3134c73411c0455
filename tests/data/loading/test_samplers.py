from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mdprop.data.loading.samplers import ClassBalancedSampler
from mdprop.errors import ParameterError

LABELS = [9, 4, 4, 7, 9, 7, 4, 9, 7, 4, 4, 2, 2, 2, 9, 2]


def epoch_of(sampler: ClassBalancedSampler, epoch: int = 0) -> list[list[tuple[int, int]]]:
    sampler.epoch = epoch
    return list(sampler)


def rows_of(batches: list[list[tuple[int, int]]]) -> list[list[int]]:
    return [[row for row, _ in batch] for batch in batches]


@given(
    sizes=st.lists(st.integers(2, 7), min_size=2, max_size=8),
    classes=st.integers(1, 8),
    per_class=st.integers(2, 4),
    seed=st.integers(0, 2**32 - 1),
    epoch=st.integers(0, 1000),
)
@settings(max_examples=60)
def test_a_batch_has_different_classes_with_as_many_images_each(
    sizes: list[int], classes: int, per_class: int, seed: int, epoch: int
) -> None:
    classes = min(classes, len(sizes))
    labels = np.repeat(np.arange(len(sizes)) * 3 + 5, sizes)
    sampler = ClassBalancedSampler(labels, classes * per_class, per_class, seed)
    batches = rows_of(epoch_of(sampler, epoch))
    assert len(batches) == len(sampler) == max(1, len(labels) // (classes * per_class))
    for batch in batches:
        assert list(Counter(labels[batch].tolist()).values()) == [per_class] * classes
        for label in np.unique(labels[batch]):
            own = [row for row in batch if labels[row] == label]
            # Twice the same image only where a deck ran out amid a deal.
            assert len(set(own)) == per_class or (labels == label).sum() % per_class


def test_the_images_of_a_class_follow_each_other() -> None:
    for batch in rows_of(epoch_of(ClassBalancedSampler(LABELS, 6, 2, seed=0))):
        labels = [LABELS[row] for row in batch]
        assert labels[::2] == labels[1::2]


@pytest.mark.parametrize("per_class", [2, 3])
def test_each_image_of_a_class_is_seen_before_one_comes_again(per_class: int) -> None:
    labels = np.repeat([0, 1], [7, 5])
    sampler = ClassBalancedSampler(labels, 2 * per_class, per_class, seed=1)
    sampler.batches = 40
    seen = {0: Counter(), 1: Counter()}
    for batch in rows_of(epoch_of(sampler)):
        for row in batch:
            counts = seen[int(labels[row])]
            counts[row] += 1
            size = int((labels == labels[row]).sum())
            assert counts[row] == -(-counts.total() // size)  # the round of the deck that is being dealt
    assert all(max(c.values()) - min(c.values()) <= 1 for c in seen.values())


def test_a_class_with_fewer_images_than_asked_repeats_some() -> None:
    labels = [0, 0, 1, 1, 1, 1]
    (batch,) = rows_of(epoch_of(ClassBalancedSampler(labels, 8, 4, seed=0)))
    counts = Counter(batch)
    assert sorted(counts[row] for row in (0, 1)) == [2, 2]
    assert sorted(counts[row] for row in (2, 3, 4, 5)) == [1, 1, 1, 1]


def test_classes_are_drawn_evenly() -> None:
    labels = np.repeat(np.arange(10), 4)
    sampler = ClassBalancedSampler(labels, 8, 2, seed=0)
    drawn = Counter(
        int(labels[row])
        for epoch in range(200)
        for batch in rows_of(epoch_of(sampler, epoch))
        for row in batch
    )
    assert len(drawn) == 10
    expected = drawn.total() / 10
    assert all(abs(count - expected) < 0.15 * expected for count in drawn.values())


def test_an_epoch_is_drawn_from_the_seed_and_its_number() -> None:
    epochs = {(s, e): epoch_of(ClassBalancedSampler(LABELS, 4, 2, s), e) for s in range(3) for e in range(3)}
    for (seed, epoch), batches in epochs.items():
        assert batches == epoch_of(ClassBalancedSampler(LABELS, 4, 2, seed), epoch)
    assert len({str(batches) for batches in epochs.values()}) == len(epochs)
    # seed x epoch would make the first epoch the same for all seeds, and seed 0 the same in every epoch
    assert epochs[0, 0] != epochs[1, 0] != epochs[2, 0]
    assert epochs[0, 1] != epochs[0, 2]


def test_a_new_pass_repeats_the_epoch_until_it_is_set() -> None:
    sampler = ClassBalancedSampler(LABELS, 4, 2, seed=0)
    assert list(sampler) == list(sampler) == epoch_of(sampler, 0)


def test_each_row_has_a_seed_of_its_own() -> None:
    sampler = ClassBalancedSampler(LABELS, 4, 2, seed=0)
    seeds = [seed for epoch in range(5) for batch in epoch_of(sampler, epoch) for _, seed in batch]
    assert len(set(seeds)) == len(seeds)
    assert all(isinstance(seed, int) and 0 <= seed < 2**63 for seed in seeds)


def test_too_few_classes_for_a_batch() -> None:
    with pytest.raises(
        ParameterError,
        match=r"^train\.batch_size = 10 with train\.images_per_class = 2 needs 5 classes .* has 4: "
        r"lower batch_size to 8 or less",
    ):
        ClassBalancedSampler(LABELS, 10, 2, seed=0)
    assert len(ClassBalancedSampler(LABELS, 8, 2, seed=0)) == 2


def test_the_authors_rule_draws_classes_and_images_with_replacement() -> None:
    labels = np.repeat(np.arange(3), 4)
    sampler = ClassBalancedSampler(labels, 12, 2, seed=0, replacement=True)
    classes: Counter[int] = Counter()
    rows: Counter[int] = Counter()
    twice_a_class = twice_an_image = 0
    for epoch in range(400):
        for batch in rows_of(epoch_of(sampler, epoch)):
            pairs = [tuple(batch[i : i + 2]) for i in range(0, 12, 2)]
            assert all(labels[a] == labels[b] for a, b in pairs)
            drawn = [int(labels[a]) for a, _ in pairs]
            twice_a_class += len(set(drawn)) < len(drawn)
            twice_an_image += sum(a == b for a, b in pairs)
            classes.update(drawn)
            rows.update(batch)
    assert twice_a_class == 400  # six draws of three classes
    assert 0.2 < twice_an_image / 2400 < 0.3  # one in four
    assert max(classes.values()) < 1.1 * min(classes.values())
    assert len(rows) == 12
    assert epoch_of(sampler, 1) == epoch_of(ClassBalancedSampler(labels, 12, 2, 0, replacement=True), 1)


def test_with_replacement_a_batch_may_ask_for_more_classes_than_there_are() -> None:
    (batch,) = rows_of(epoch_of(ClassBalancedSampler([0, 0, 1], 8, 2, seed=0, replacement=True)))
    assert len(batch) == 8


@pytest.mark.parametrize("replacement", [False, True])
def test_places_pick_from_each_batch(replacement: bool) -> None:
    whole = epoch_of(ClassBalancedSampler(LABELS, 6, 2, 0, replacement))
    part = epoch_of(ClassBalancedSampler(LABELS, 6, 2, 0, replacement, places=[5, 0, 2]))
    assert part == [[batch[5], batch[0], batch[2]] for batch in whole]
