"""Experiments with hits that are drawn, not run."""

from __future__ import annotations

from typing import Any

import numpy as np

from mdprop.experiments.repository import Experiment, TestImages
from mdprop.report.intervals import Hits

LABELS = np.arange(200) // 10
IMAGES = TestImages("one")


def hits(mean: float, *key: int, ids: Any = None) -> Hits:
    """Of queries that are `ids`, all 200 without."""
    ids = np.arange(200) if ids is None else np.asarray(ids)
    return Hits(ids, LABELS[ids], (np.random.default_rng([*key, round(1000 * mean)]).random(200) < mean)[ids])


def experiment(
    name: str,
    recall: float = 0.5,
    *,
    methods: Any = ("standard", "mdprop"),
    seeds: Any = (0,),
    images: TestImages = IMAGES,
    ids: Any = None,
    **parameters: Any,
) -> Experiment:
    """Clean images at `recall`, the worst case at half of it; parameters: attack__targets=2."""
    results = {
        method: {
            part: {seed: hits(share * recall, seed, len(method), ids=ids) for seed in seeds}
            for part, share in (("clean", 1.0), ("near", 0.8), ("worst_case", 0.5))
        }
        for method in methods
    }
    values = {key.replace("__", "."): value for key, value in parameters.items()}
    return Experiment(name, name[:7], {"seeds": list(seeds), "train.epochs": 8, **values}, images, results)
