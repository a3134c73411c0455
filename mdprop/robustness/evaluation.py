"""Retrieval and embedding-space measures of one model, on clean and on adversarial images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdprop.attacks.goals import Gallery
from mdprop.attacks.threat import Threat
from mdprop.branches import CLEAN
from mdprop.config.schema import EvaluateSettings
from mdprop.data.stores.adversarial import read_outcomes
from mdprop.data.stores.embeddings import read_embeddings
from mdprop.errors import ResultError
from mdprop.metrics import clustering_scores, embedding_density, retrieve, spectral_decay
from mdprop.metrics.retrieval import Retrieval
from mdprop.robustness.sampling import is_measurable, with_partner
from mdprop.robustness.score import score_of, spread
from mdprop.robustness.worst_case import counts, worst_case_of
from mdprop.runs import GALLERY, SCORE, WORST_CASE, Run

MAP_DEPTH = 1000

Columns = dict[str, NDArray[Any]]
"""Of the queries of one input set, by name: [Q] each."""

Metrics = dict[str, float]


@dataclass(frozen=True)
class Images:
    """ids [N], labels [N] and embeddings [N, D]."""

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    embeddings: NDArray[np.float32]

    def rows(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the images with these ids are."""
        order = np.argsort(self.ids)
        return order[np.searchsorted(self.ids, ids, sorter=order)]


def evaluate_run(
    run: Run, branches: Sequence[str], given: Mapping[str, Threat], settings: EvaluateSettings
) -> tuple[dict[str, Metrics], list[Columns]]:
    """What each query finds, and the measures of each input set.

    Queries search the gallery of a data set that has one, else the clean images; adversarial ones
    without their own clean image. In a second protocol each adversarial query searches all other
    adversarial images of its set. What needs another image of a query's class among the queries, as that
    protocol, clusters and density do, is measured over the queries that have one: `queries_with_partner`
    says how many, and where they are of fewer than two classes, these measures are left out. Gallery and
    queries are embedded through the answering branch. Sets
    whose goal moves an image of the gallery have measures of the goal only.

    The input set `worst_case` counts a query only where it is right under every attack that harms;
    `robustness_score` is there where all of RobRank's goals are among the threats.

    given: the attacks by the name of their set.

    Returns {input set: {metric: value}}, where a set of another branch than clean is called
    <set>@<branch>; and the columns of queries.parquet, set by set: see `write_queries`. The means of
    retrieval, of the distance moved and of the goals' measures are taken over these columns.

    Raises `ResultError` for a set that cannot be measured: too small, too few dimensions, not finite.
    """
    metrics: dict[str, Metrics] = {}
    queries: list[Columns] = []
    for branch in branches:
        threats = {name: threat.seen_from(branch) for name, threat in given.items()}
        clean = Images(*read_embeddings(run.embeddings(branch, CLEAN)))
        separate = run.embeddings(branch, GALLERY)
        gallery = Images(*read_embeddings(separate)) if separate.exists() else clean
        for name in (CLEAN, *threats):
            path = run.embeddings(branch, name)
            images = clean if name == CLEAN else Images(*read_embeddings(path))
            threat = threats.get(name)
            columns: Columns = {}
            values: Metrics = {"queries": len(images.ids)}
            if threat is None or threat.wants.perturbs == "query":
                columns, found = _retrieved(path, images, gallery, threat is not None, settings)
                values = found | values
            if threat is not None:
                reached = _attack(run, branch, name, threat, images, clean)
                values |= {key: float(column.mean(dtype=np.float64)) for key, column in reached.items()}
                columns |= reached
            count = len(images.ids)
            where = {"set": np.full(count, name), "branch": np.full(count, branch)}
            queries.append({**where, "id": images.ids, "label": images.labels, **columns})
            metrics[set_name(name, branch)] = values
        attacks = [name for name, threat in threats.items() if counts(threat)]
        if attacks:
            columns, metrics[set_name(WORST_CASE, branch)] = worst_case_of(queries, attacks, branch)
            queries.append(columns)
        own = {name: threat for name, threat in threats.items() if threat.white_box}
        score = score_of({n: metrics[set_name(n, branch)] for n in (CLEAN, *own)}, own)
        if score:
            metrics[set_name(SCORE, branch)] = score | {"spread": spread(clean.embeddings)}
    return metrics, queries


def set_name(input_set: str, branch: str) -> str:
    """What metrics.json calls an input set of a branch."""
    return input_set if branch == CLEAN else f"{input_set}@{branch}"


def _retrieved(
    path: Path, images: Images, gallery: Images, attacked: bool, settings: EvaluateSettings
) -> tuple[Columns, Metrics]:
    """What the queries in `path` find, in the gallery and, where they are attacked, among themselves."""
    try:
        columns, values = retrieval(images, gallery, settings)
        values |= _space(images, settings.seed)
        if attacked:
            among = retrieve(images.embeddings, images.labels, settings.ks)
            columns["rank_all_adversarial"] = among.rank
            values |= _among_themselves(among, images.labels, settings.ks)
    except ValueError as error:
        raise ResultError(
            f"{path} cannot be measured: {error} (too few images, or a training that diverged)"
        ) from None
    return columns, values


def retrieval(images: Images, gallery: Images, settings: EvaluateSettings) -> tuple[Columns, Metrics]:
    """Where each query finds its class, and what that amounts to."""
    found: Retrieval = retrieve(
        images.embeddings,
        images.labels,
        settings.ks,
        ("R", MAP_DEPTH),
        gallery=gallery.embeddings,
        gallery_labels=gallery.labels,
        gallery_ids=gallery.ids,
        ids=images.ids,
        exact_limit=settings.exact_limit,
        seed=settings.seed,
    )
    columns: Columns = {
        "hit": found.rank == 1,
        "rank": found.rank,
        "average_precision": found.precision["R"],
        f"average_precision_{MAP_DEPTH}": found.precision[MAP_DEPTH],
    }
    values = {f"recall_at_{k}": found.recall(k) for k in settings.ks}
    values |= {f"map_at_{str(d).lower()}": float(column.mean()) for d, column in found.precision.items()}
    return columns, values | dict(found.gaps)


def _among_themselves(found: Retrieval, labels: NDArray[np.int64], ks: Sequence[int]) -> Metrics:
    """Recall of the queries that have another image of their class to find."""
    if not is_measurable(labels):
        return {}
    rank = found.rank[with_partner(labels)]
    return {f"recall_at_{k}_all_adversarial": float(np.mean((rank > 0) & (rank <= k))) for k in ks}


def _space(images: Images, seed: int) -> Metrics:
    """The shape of the space; of classes only where images have others of theirs beside them."""
    paired = with_partner(images.labels)
    values: Metrics = {"queries_with_partner": int(paired.sum())}
    if is_measurable(images.labels):
        embeddings, labels = images.embeddings[paired], images.labels[paired]
        density = embedding_density(embeddings, labels)
        values |= clustering_scores(embeddings, labels, seed=seed)
        values |= {f"density_{key}": value for key, value in density.items()}
    return values | {"spectral_decay": spectral_decay(images.embeddings)}


def _attack(run: Run, branch: str, name: str, threat: Threat, images: Images, clean: Images) -> Columns:
    """How far an attack got with each query.

    Raises `ResultError` where the set's images are not those that were embedded.
    """
    attacked = run.attacked(branch, name, threat)
    outcomes = read_outcomes(attacked)
    if not np.array_equal(outcomes.ids, images.ids):
        raise ResultError(
            f"{attacked} and {run.embeddings(branch, name)} hold different images: run the embed stage again"
        )
    own, aims = clean.rows(images.ids), clean.rows(outcomes.aims)
    gallery: Gallery[NDArray[Any]] = Gallery(clean.embeddings, clean.labels, own, images.labels, aims)
    before = clean.embeddings[own]
    moved = {"moved": np.linalg.norm(images.embeddings - before, axis=1)}
    if threat.white_box:  # otherwise the attack measured in another space
        moved["moved_in_attack"] = outcomes.moved
    return {
        **moved,
        "objective": outcomes.objective,
        "size": outcomes.size,
        "outside": outcomes.outside,
        "zero_gradient": outcomes.zero_gradient,
        "broken_gradient": outcomes.broken_gradient,
        **threat.wants.measure(images.embeddings, before, clean.embeddings[aims], gallery),
    }
