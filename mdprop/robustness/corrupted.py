"""Retrieval of one model where its queries are corrupted; no one attacks."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from mdprop.branches import CLEAN
from mdprop.config.schema import EvaluateSettings
from mdprop.corruptions import CORRUPTIONS, parse_set
from mdprop.data.stores.embeddings import read_embeddings
from mdprop.errors import ResultError
from mdprop.robustness.evaluation import Columns, Images, Metrics, retrieval, set_name
from mdprop.runs import CORRUPTED, GALLERY, Run


def measure_corruptions(
    run: Run, branch: str, names: Collection[str], settings: EvaluateSettings
) -> tuple[dict[str, Metrics], list[Columns]]:
    """What corrupted queries find in the clean gallery, without their own clean image.

    names: of corrupted input sets, such as `fog_3`; without any there is no result.

    Returns metrics and columns as `evaluate_run` does: for each set those of retrieval and `moved`, the
    distance from the clean embedding. The input set `corruptions` has the mean Recall@1 over all sets, and
    as recall_at_1_<family> over those of a family.

    Raises `ResultError` for a set that cannot be measured, `DataError` for one that is not embedded.
    """
    metrics: dict[str, Metrics] = {}
    queries: list[Columns] = []
    if not names:
        return metrics, queries
    clean = Images(*read_embeddings(run.embeddings(branch, CLEAN)))
    separate = run.embeddings(branch, GALLERY)
    gallery = Images(*read_embeddings(separate)) if separate.exists() else clean
    for name in names:
        path = run.embeddings(branch, name)
        images = Images(*read_embeddings(path))
        if not np.isin(images.ids, clean.ids).all():
            raise ResultError(
                f"{path} holds images that are not among the clean ones: run the embed stage again"
            )
        try:
            columns, values = retrieval(images, gallery, settings)
        except ValueError as error:
            raise ResultError(f"{path} cannot be measured: {error}") from None
        count = len(images.ids)
        moved = np.linalg.norm(images.embeddings - clean.embeddings[clean.rows(images.ids)], axis=1)
        where = {"set": np.full(count, name), "branch": np.full(count, branch)}
        queries.append({**where, "id": images.ids, "label": images.labels, **columns, "moved": moved})
        values |= {"queries": count, "moved": float(moved.mean(dtype=np.float64))}
        metrics[set_name(name, branch)] = values
    metrics[set_name(CORRUPTED, branch)] = _means({n: metrics[set_name(n, branch)] for n in names})
    return metrics, queries


def _means(sets: dict[str, Metrics]) -> Metrics:
    """Of Recall@1 over all sets, and over those of each family."""
    recalls: dict[str, list[float]] = {}
    for name, values in sets.items():
        parsed = parse_set(name)
        assert parsed is not None, name
        recalls.setdefault(CORRUPTIONS[parsed[0]].family, []).append(values["recall_at_1"])
    means = {f"recall_at_1_{family}": float(np.mean(found)) for family, found in recalls.items()}
    every = float(np.mean(np.concatenate(list(recalls.values()))))
    return {"recall_at_1": every, **means, "queries": next(iter(sets.values()))["queries"]}
