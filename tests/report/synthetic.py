"""Synthetic metrics: plausible numbers by formula, different for every method, seed and input set."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

from mdprop.methods import CLEAN, goal_of

METHODS = ("standard", "at", "advprop", "mdprop")
KS = (1, 2, 4, 8)
EPSILONS = {
    "single_target_small": 0.05,
    "single_target_middle": 0.1,
    "single_target_large": 0.2,
    "multi_target_small": 0.05,
    "multi_target_middle": 0.1,
    "multi_target_large": 0.2,
    "untargeted_middle": 0.1,
    "unadversarial_middle": 0.1,
}
CLEAN_RECALL = {"standard": 0.79, "at": 0.74, "advprop": 0.78, "mdprop": 0.81, "mdprop_unadv": 0.80}
ROBUSTNESS = {"standard": 12.0, "at": 3.0, "advprop": 5.0, "mdprop": 4.0, "mdprop_unadv": 4.5}


def make_run(method: str, seed: int) -> dict[str, dict[str, float]]:
    """One metrics.json: {input set: {metric: number}}."""
    noise = random.Random(f"{method} {seed}")
    run: dict[str, dict[str, float]] = {}
    for name in (CLEAN, *EPSILONS):
        epsilon = EPSILONS.get(name, 0.0) * (-0.2 if goal_of(name) == "unadversarial" else 1.0)
        recall = CLEAN_RECALL[method] * 2 ** (-ROBUSTNESS[method] * epsilon) + noise.uniform(-0.01, 0.01)
        metrics = {f"recall_at_{k}": 1 - (1 - recall) / k**0.7 for k in KS}
        if name != CLEAN:
            metrics |= {f"recall_at_{k}_all_adversarial": 0.9 * metrics[f"recall_at_{k}"] for k in KS}
        metrics |= {
            "map_at_r": 0.5 * recall,
            "map_at_1000": 0.6 * recall,
            "nmi": 0.8 * recall,
            "f1": 0.4 * recall,
        }
        intra, inter = 0.2 + noise.uniform(0, 0.05), 0.9 - noise.uniform(0, 0.05)
        metrics |= {"density_intra": intra, "density_inter": inter, "density_ratio": intra / inter}
        metrics |= {"spectral_decay": 0.3 - 0.1 * CLEAN_RECALL[method], "queries": 500}
        run[name] = metrics
    return run


def make_runs(
    methods: Sequence[str] = METHODS, seeds: Sequence[int] = (0,)
) -> dict[str, dict[int, dict[str, dict[str, float]]]]:
    return {method: {seed: make_run(method, seed) for seed in seeds} for method in methods}


def write_runs(folder: Path, methods: Sequence[str] = METHODS, seeds: Sequence[int] = (0,)) -> Path:
    """`folder`/<method>/<seed>/metrics.json for each method and seed."""
    for method, by_seed in make_runs(methods, seeds).items():
        for seed, run in by_seed.items():
            path = folder / method / str(seed) / "metrics.json"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(run))
    return folder
