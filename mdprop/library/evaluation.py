"""Measuring a network on one's own `DataLoader`, clean and under attack."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn
from torchvision.transforms import v2

from mdprop.attacks.threat import Threat
from mdprop.branches import CLEAN
from mdprop.config.schema import EvaluateSettings
from mdprop.errors import DataError, ParameterError
from mdprop.files import read_sealed_json
from mdprop.library.loaders import HeldImages, Loader
from mdprop.library.networks import measurable
from mdprop.library.settings import adversary_settings, default_attacks, section
from mdprop.robustness.measure import left_out, measure
from mdprop.runs import GALLERY, WORST_CASE


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` measured; shares are in [0, 1].

    recall: Recall@K of the clean queries, by K.
    attacked: Recall@1 of the attacked queries, by attack. queries: how many were attacked.
    worst_case: the share of them that are right under every attack that harms; None without one.
    warnings: signs that the robustness is not real, and queries that cannot be right, a sentence each.
    metrics: all that was measured, by input set and metric, as docs/method.md defines it.
    """

    recall: dict[int, float]
    attacked: dict[str, float]
    queries: int
    worst_case: float | None
    warnings: tuple[str, ...]
    metrics: dict[str, dict[str, float]]

    def __str__(self) -> str:
        rows = [(f"Recall@{k}", value) for k, value in self.recall.items()]
        rows += [(f"Recall@1 {name}", value) for name, value in self.attacked.items()]
        if self.worst_case is not None:
            rows.append(("Recall@1 worst case", self.worst_case))
        width = max(len(name) for name, _ in rows)
        lines = [f"{name:{width}} {value:7.1%}" for name, value in rows]
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])


def evaluate(
    model: nn.Module,
    loader: Loader,
    gallery: Loader | None = None,
    *,
    attacks: Mapping[str, Threat] | None = None,
    epsilon: float = 4 / 255,
    queries: int = 400,
    ks: Sequence[int] = (1, 2, 4, 8),
    branch: str = CLEAN,
    seed: int = 0,
) -> Evaluation:
    """Attack a network's queries, and measure what clean and attacked ones find.

    model: what `fit`, `build_model` or `load_model` returns, which is not changed; or any module of
        pixels [B, C, H, W] in [0, 1] that returns embeddings [B, D], which is left in eval mode.
    loader: the queries: batches of images [B, C, H, W], floats in [0, 1] or uint8, all of one size, and
        labels [B], whole numbers. In any order; they are read once, into a temporary file of 4 bytes a value.
    gallery: what the queries search; None: the clean images of `loader`. A query, attacked or not, never
        finds its own image: in the gallery, that is one with the same pixels.
    attacks: by name, white-box through `branch` unless they say otherwise; None: 10 steps of PGD within
        an L-infinity ball of `epsilon`, in pixels of [0, 1], towards one image of another class, towards
        five, and away from where the query is.
    queries: how many are attacked, drawn by `seed`; 0: all of them.
    branch: the batch-norm branch, or mixture of two, that answers.

    Raises `DataError`, `ModelError`, `ParameterError` or `ResultError`, one line, for what cannot be
    measured.
    """
    sets = default_attacks(epsilon) if attacks is None else dict(attacks)
    adversary = adversary_settings(sets, queries, seed)
    settings = section(EvaluateSettings, {"ks": tuple(ks), "seed": seed, "exact_limit": 200_000})
    with tempfile.TemporaryDirectory(prefix="mdprop-") as folder:
        stores = {CLEAN: HeldImages(loader, Path(folder) / "queries")}
        if gallery is not None:
            stores[GALLERY] = HeldImages(gallery, Path(folder) / "gallery", stores[CLEAN])
        alone = _without_partner(stores[CLEAN], stores.get(GALLERY, stores[CLEAN]))
        if alone == len(stores[CLEAN]):
            raise DataError(
                "no query has another image of its class in the gallery, so that none can be right: two or "
                "more images a class are needed, and in a gallery the classes of the queries"
            )
        network = measurable(model, stores[CLEAN].image(0).shape[0], branch)
        if others := left_out(network, sets):
            raise ParameterError(
                f"attacks: {others[0]} is on another run, or a branch that the network has not: leave it out"
            )
        run = measure(network, Path(folder) / "results", stores, v2.Identity(), adversary, settings)
        named: Any = read_sealed_json(run.metrics, "run again")
        found: Any = read_sealed_json(run.checks, "run again")
    metrics = {name.removesuffix(f"@{branch}"): values for name, values in named.items()}
    worst = metrics.get(WORST_CASE, {}).get("recall_at_1")
    warnings = [str(finding["text"]) for findings in found.values() for finding in findings]
    if alone:
        warnings.append(
            f"{alone} queries have no other image of their class in the gallery: none can be right"
        )
    return Evaluation(
        {k: metrics[CLEAN][f"recall_at_{k}"] for k in settings.ks},
        {name: metrics[name]["recall_at_1"] for name in sets if "recall_at_1" in metrics[name]},
        int(metrics[next(iter(sets))]["queries"]),
        worst,
        tuple(warnings),
        metrics,
    )


def _without_partner(queries: HeldImages, gallery: HeldImages) -> int:
    """How many queries have no image of their class, but themselves, in the gallery."""
    ids: dict[int, set[int]] = {}
    for label, number in zip(gallery.labels.tolist(), gallery.ids.tolist(), strict=True):
        ids.setdefault(label, set()).add(number)
    pairs = zip(queries.labels.tolist(), queries.ids.tolist(), strict=True)
    return sum(not ids.get(label, set()) - {number} for label, number in pairs)
