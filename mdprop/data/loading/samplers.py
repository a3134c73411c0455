"""Which images make a training batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from mdprop.errors import ParameterError


class ClassBalancedSampler(Sampler[list[tuple[int, int]]]):
    """Batches of `batch_size // images_per_class` different classes with `images_per_class` images each.

    Classes are drawn at random, without replacement within a batch; the images of a class come
    from a shuffled deck, so that they are all seen before one comes again; only a class of fewer
    images repeats some in a batch. An epoch is len(labels) // batch_size batches (at least one),
    drawn from (seed, epoch).

    replacement: the authors' rule instead. Classes are drawn with replacement, and the images of a
        class too, so that a batch may hold a class twice and an image twice.
    places: which rows of each batch to yield, in this order; None: all. (Processes that share a
        batch draw the same one.)

    `epoch` is set from outside, and `first`, the batch to begin with: those before it are drawn, not yielded.

    Yields lists of (row, seed of the row's augmentation). Raises `ParameterError` when there are
    fewer classes than a batch needs.
    """

    def __init__(
        self,
        labels: Sequence[int] | NDArray[np.int64],
        batch_size: int,
        images_per_class: int,
        seed: int,
        replacement: bool = False,
        places: Sequence[int] | None = None,
    ) -> None:
        self.rows = [np.flatnonzero(np.asarray(labels) == c) for c in np.unique(labels)]
        self.classes_per_batch = batch_size // images_per_class
        if len(self.rows) < self.classes_per_batch and not replacement:
            raise ParameterError(
                f"train.batch_size = {batch_size} with train.images_per_class = {images_per_class} needs "
                f"{self.classes_per_batch} classes and the training set has {len(self.rows)}: "
                f"lower batch_size to {len(self.rows) * images_per_class} or less, or raise images_per_class"
            )
        self.images_per_class = images_per_class
        self.batches = max(1, len(labels) // batch_size)
        self.seed = seed
        self.replacement = replacement
        self.places = places
        self.epoch = self.first = 0

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        decks = [_Deck(rows, rng) for rows in self.rows]
        for number in range(self.batches):
            classes = rng.choice(len(decks), self.classes_per_batch, replace=self.replacement)
            if self.replacement:
                drawn = [rng.choice(self.rows[c], self.images_per_class).tolist() for c in classes]
                rows = [row for own in drawn for row in own]
            else:
                rows = [row for c in classes for row in decks[c].deal(self.images_per_class)]
            batch = list(zip(rows, rng.integers(2**62, size=len(rows)).tolist(), strict=True))
            if number < self.first:
                continue
            yield batch if self.places is None else [batch[place] for place in self.places]


class _Deck:
    """The images of a class, dealt in shuffled order, shuffled again when they run out."""

    def __init__(self, rows: NDArray[np.int64], rng: np.random.Generator) -> None:
        self.rows, self.rng = rows, rng
        self.left: list[int] = []

    def deal(self, count: int) -> list[int]:
        dealt: list[int] = []
        while len(dealt) < count:
            if not self.left:
                shuffled: list[int] = self.rng.permutation(self.rows).tolist()
                self.left = sorted(shuffled, key=lambda row: row in dealt)
            take = count - len(dealt)
            dealt, self.left = dealt + self.left[:take], self.left[take:]
        return dealt
