"""Synthetic metrics: plausible numbers by formula, different for every method, branch, seed and input set."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import numpy as np

from mdprop.attacks.threat import Threat
from mdprop.branches import CLEAN
from mdprop.data.stores.examples import (
    Attack,
    Examples,
    Found,
    Move,
    Neighbour,
    Plane,
    Query,
    write_examples,
)
from mdprop.data.stores.queries import write_queries
from mdprop.files import sealed_json
from mdprop.report.aggregate import Stat, Summary
from mdprop.runs import CORRUPTED, WORST_CASE, Run

METHODS = ("standard", "at", "advprop", "mdprop")
KS = (1, 2, 4, 8)
THREATS = {
    "single_target_small": Threat(goal="single_target", epsilon=0.05),
    "single_target_middle": Threat(goal="single_target", epsilon=0.1),
    "single_target_large": Threat(goal="single_target", epsilon=0.2),
    "multi_target_small": Threat(goal="multi_target", epsilon=0.05),
    "multi_target_middle": Threat(goal="multi_target", epsilon=0.1),
    "multi_target_large": Threat(goal="multi_target", epsilon=0.2),
    "untargeted_middle": Threat(goal="untargeted", epsilon=0.1),
    "unadversarial_middle": Threat(goal="unadversarial", epsilon=0.1),
}
CLEAN_RECALL = {"standard": 0.79, "at": 0.74, "advprop": 0.78, "mdprop": 0.81, "mdprop_unadv": 0.80}
QUERIES = 200
ROBUSTNESS = {"standard": 12.0, "at": 3.0, "advprop": 5.0, "mdprop": 4.0, "mdprop_unadv": 4.5}
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
"""A grey pixel, as PNG in base64."""

Metrics = dict[str, dict[str, float]]


def make_metrics(
    method: str,
    seed: int,
    branches: Sequence[str] = (CLEAN,),
    threats: Mapping[str, Threat] = THREATS,
) -> Metrics:
    """One metrics.json: {input set: {metric: number}}."""
    metrics: Metrics = {}
    for branch in branches:
        at = "" if branch == CLEAN else f"@{branch}"
        for name in (CLEAN, *threats):
            metrics[f"{name}{at}"] = _measures(method, seed, branch, threats.get(name))
        lowest = min(metrics[f"{name}{at}"]["recall_at_1"] for name in (CLEAN, *threats))
        metrics[f"{WORST_CASE}{at}"] = {"recall_at_1": 0.8 * lowest, "queries": 500}
    return metrics


def _measures(method: str, seed: int, branch: str, threat: Threat | None) -> dict[str, float]:
    noise = random.Random(f"{method} {seed} {branch} {threat}")
    epsilon = threat.epsilon * (-0.2 if threat.goal == "unadversarial" else 1.0) if threat else 0.0
    recall = CLEAN_RECALL[method] * 2 ** (-ROBUSTNESS[method] * epsilon) + noise.uniform(-0.01, 0.01)
    metrics = {f"recall_at_{k}": 1 - (1 - recall) / k**0.7 for k in KS}
    if threat:
        metrics |= {f"recall_at_{k}_all_adversarial": 0.9 * metrics[f"recall_at_{k}"] for k in KS}
        metrics |= {"moved": 5 * threat.epsilon, "objective": 1 - threat.epsilon}
        metrics |= {"approach": 4 * threat.epsilon} if threat.goal != "untargeted" else {}
    metrics |= {
        "map_at_r": 0.5 * recall,
        "map_at_1000": 0.6 * recall,
        "nmi": 0.8 * recall,
        "f1": 0.4 * recall,
    }
    intra, inter = 0.2 + noise.uniform(0, 0.05), 0.9 - noise.uniform(0, 0.05)
    metrics |= {"density_intra": intra, "density_inter": inter, "density_ratio": intra / inter}
    return metrics | {"spectral_decay": 0.3 - 0.1 * CLEAN_RECALL[method], "queries": 500}


def make_rows(
    methods: Sequence[str] = METHODS, seeds: Sequence[int] = (0,), threats: Mapping[str, Threat] = THREATS
) -> dict[str, dict[int, Metrics]]:
    """What `collect` finds where the clean branch alone answers."""
    return {m: {seed: make_metrics(m, seed, threats=threats) for seed in seeds} for m in methods}


def summary_of(**values: tuple[float | None, float | None]) -> Summary:
    """method=(clean, single_target_middle) Recall@1; None: missing."""
    return {
        method: {
            name: {"recall_at_1": Stat(mean=value, std=0.0, n=1)}
            for name, value in zip((CLEAN, "single_target_middle"), pair, strict=True)
            if value is not None
        }
        for method, pair in values.items()
    }


def runs_of(methods: Sequence[str] = METHODS, seeds: Sequence[int] = (0,)) -> list[Run]:
    return [Run(method, seed) for method in methods for seed in seeds]


def write_runs(
    runs: Sequence[Run],
    branches: Mapping[str, Sequence[str]] | None = None,
    threats: Mapping[str, Threat] = THREATS,
    corruptions: Sequence[str] = (),
) -> None:
    """The files of each run below the working folder; methods not in `branches` have the clean one."""
    for run in runs:
        answering = (branches or {}).get(run.method, (CLEAN,))
        met = {name: threat for name, threat in threats.items() if threat.source != str(run)}
        metrics = make_metrics(run.method, run.seed, answering, met)
        for at, name in enumerate(corruptions):
            metrics[name] = {"recall_at_1": metrics[CLEAN]["recall_at_1"] * (0.9 - 0.1 * at), "queries": 500}
        if corruptions:
            mean = sum(metrics[name]["recall_at_1"] for name in corruptions) / len(corruptions)
            metrics[CORRUPTED] = {"recall_at_1": mean, "queries": 500}
        run.folder.mkdir(parents=True)
        run.metrics.write_text(sealed_json(metrics))
        run.checks.write_text(sealed_json({branch: [] for branch in answering}))
        write_examples(run.examples, make_examples(run.method, run.seed))
        write_hits(run, {name: values["recall_at_1"] for name, values in metrics.items()})


def make_examples(method: str, seed: int = 0, queries: int = 8) -> Examples:
    """Queries of two classes with five neighbours, of which an attack makes the nearest ones wrong."""
    strong = method != "standard"

    def found(i: int, attacked: bool) -> Found:
        rank = 1 + (i if attacked and not (strong and i % 2) else 0)
        near = [
            Neighbour(id=100 + k, label=i % 2 if k >= rank else 1 - i % 2, distance=0.1 * k)
            for k in range(1, 6)
        ]
        return Found(rank=rank, neighbours=near)

    moves = [
        Move(id=i, label=i % 2, before=(0.1 * i, i % 2), after=(0.1 * i, 0.5 + 0.01 * seed), hit=strong)
        for i in range(queries)
    ]
    points = [(i % 2, 0.1 * i, float(i % 2)) for i in range(10)]
    return Examples(
        branch=CLEAN,
        input_set="untargeted_middle",
        kind="png",
        amplified=5,
        classes={label: f"class <{label}>" for label in range(QUERIES // 10)},
        queries=[
            Query(
                id=i,
                label=i % 2,
                clean=found(i, attacked=False),
                attack=Attack(found=found(i, attacked=True), picture=PIXEL, perturbation=PIXEL),
            )
            for i in range(queries)
        ],
        plane=Plane(explained=(0.5, 0.25), points=points, moves=moves),
        pictures={i: PIXEL for i in (*range(queries), *range(101, 106))},
    )


def write_hits(run: Run, recall: Mapping[str, float], first: int = 0) -> None:
    """queries.parquet: of 20 classes with 10 queries each, this share hits, to the nearest query.

    recall: by input set, <set>@<branch> for other branches. first: the id of the first query.
    """
    queries = np.arange(QUERIES)
    order = np.random.default_rng(0).permutation(QUERIES)
    parts = []
    for name, share in recall.items():
        input_set, _, branch = name.partition("@")
        where = {"set": np.full(QUERIES, input_set), "branch": np.full(QUERIES, branch or CLEAN)}
        found = {"label": queries // 10, "hit": order < round(share * QUERIES)}
        parts.append({**where, "id": first + queries, **found})
    write_queries(run.queries, parts)


def write_curves(run: Run, every: int = 1) -> None:
    """dvclive's tables of three epochs, with validation after every so many."""
    curves = {"train/loss": (1.5, 0.9, 0.7), "validation/recall_at_1": (0.3, 0.45, 0.55)}
    for metric, values in curves.items():
        path = run.live / "plots" / "metrics" / f"{metric}.tsv"
        path.parent.mkdir(parents=True)
        step = every if metric.startswith("validation") else 1
        lines = [f"{epoch}\t{value}" for epoch, value in enumerate(values, 1) if epoch % step == 0]
        path.write_text("\n".join([f"step\t{path.stem}", *lines]) + "\n")
