"""A few queries of a run with what they find, before and after an attack, and a plane of its embeddings."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import v2

from mdprop.attacks.threat import Threat
from mdprop.branches import CLEAN
from mdprop.data.loading.datasets import load_images
from mdprop.data.stores.adversarial import read_pictures
from mdprop.data.stores.embeddings import read_embeddings
from mdprop.data.stores.examples import (
    Attack,
    Examples,
    Found,
    Kind,
    Move,
    Neighbour,
    Plane,
    Query,
    write_examples,
)
from mdprop.data.stores.images import ImageStore
from mdprop.data.stores.queries import read_queries
from mdprop.metrics.neighbours import nearest_neighbours
from mdprop.robustness.evaluation import Images
from mdprop.robustness.worst_case import counts
from mdprop.runs import GALLERY, Run

QUERIES = 24
NEIGHBOURS = 5
CLASSES = 6
"""Of the plane: more would be told apart by neither colours nor markers."""

SIDE = 80  # the longer side of a picture at most, in pixels
FACTORS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

Ids = NDArray[np.int64]
Pixels = NDArray[np.float32]


def shown_attack(threats: Mapping[str, Threat], branch: str) -> str | None:
    """The set that examples show: the first untargeted one, or else the first one, of those that harm.

    Only white-box searches of a radius count, through the branch that answers.
    """
    seen = {name: threat.seen_from(branch) for name, threat in threats.items()}
    able = [n for n, t in seen.items() if counts(t) and t.white_box and t.epsilon and t.optimizer != "noise"]
    return next((name for name in able if seen[name].goal == "untargeted"), able[0] if able else None)


def write_run_examples(
    run: Run,
    branch: str,
    threats: Mapping[str, Threat],
    stores: Mapping[str, ImageStore],
    transform: v2.Transform,
    seed: int,
) -> None:
    """Write the examples of an evaluated run that answers through a branch.

    threats: the attacks that the run meets. stores: the images by input set, `clean` and where there is
    one `gallery`. transform: of test images. seed: of the draw of queries, which is of those attacked.

    The same data, attacks and seed give the same queries and classes, whatever the run. Raises as the
    files that it reads do.
    """
    name = shown_attack(threats, branch)
    clean = Images(*read_embeddings(run.embeddings(branch, CLEAN)))
    separate = run.embeddings(branch, GALLERY)
    gallery = Images(*read_embeddings(separate)) if separate.exists() else clean
    asked = Images(*read_embeddings(run.embeddings(branch, name))) if name else clean
    ids = drawn(asked.ids, seed)
    labels = asked.labels[asked.rows(ids)].tolist()
    before = _found(run, branch, CLEAN, clean, gallery, ids)
    after = _found(run, branch, name, asked, gallery, ids) if name else []
    needed = {n.id for found in (*before, *after) for n in found.neighbours}
    pictures = _pictures([stores[CLEAN]], ids, transform)
    pictures |= _pictures(list(stores.values()), sorted(needed - set(pictures)), transform)
    kind: Kind = "png" if next(iter(pictures.values())).shape[0] == 1 else "jpeg"
    amplified = 1
    attacks: list[Attack | None] = [None for _ in labels]
    if name:
        images = read_pictures(run.attacked(branch, name, threats[name]), ids)
        changes = images - np.stack([pictures[int(i)] for i in ids])
        amplified = amplification(changes)
        attacks = [
            Attack(found=found, picture=_encoded(image, kind), perturbation=_encoded(change, kind))
            for found, image, change in zip(after, images, 0.5 + amplified * changes, strict=True)
        ]
    plane = embedding_plane(clean, asked, _column(run, branch, name, "hit")) if name else None
    present = {*asked.labels.tolist(), *(n.label for found in (*before, *after) for n in found.neighbours)}
    present |= {label for label, _, _ in plane.points} if plane else set()
    examples = Examples(
        branch=branch,
        input_set=name,
        kind=kind,
        amplified=amplified,
        classes={label: _class_name(stores.values(), label) for label in sorted(present)},
        queries=[
            Query(id=int(i), label=label, clean=found, attack=attack)
            for i, label, found, attack in zip(ids, labels, before, attacks, strict=True)
        ],
        plane=plane,
        pictures={i: _encoded(pictures[i], kind) for i in sorted(pictures)},
    )
    write_examples(run.examples, examples)


def drawn(ids: Ids, seed: int) -> Ids:
    """QUERIES of these ids, or all of fewer, sorted; a draw of the ids alone, whatever their order."""
    ordered = np.sort(ids)
    if len(ordered) <= QUERIES:
        return ordered
    return np.sort(np.random.default_rng(seed).choice(ordered, QUERIES, replace=False))


def amplification(changes: Pixels) -> int:
    """The largest of FACTORS by which changes of pixels still lie within half of the range."""
    largest = float(np.abs(changes).max())
    return max((f for f in FACTORS if f * largest <= 0.5 * (1 + 1e-4)), default=1)


def embedding_plane(clean: Images, attacked: Images, hits: Mapping[int, bool]) -> Plane | None:
    """The plane of the CLASSES with the most attacked queries (of equal ones the lower label).

    None with fewer than three clean images of them.
    """
    labels, sizes = np.unique(attacked.labels, return_counts=True)
    chosen = np.sort(labels[np.lexsort((labels, -sizes))][:CLASSES])
    rows = np.flatnonzero(np.isin(clean.labels, chosen))
    if len(rows) < 3:
        return None
    from sklearn.decomposition import PCA  # slow to import

    fitted = PCA(2, svd_solver="full").fit(clean.embeddings[rows].astype(np.float64))
    moved = np.flatnonzero(np.isin(attacked.labels, chosen))
    before = _rounded(fitted.transform(clean.embeddings[clean.rows(attacked.ids[moved])]))
    after = _rounded(fitted.transform(attacked.embeddings[moved]))
    points = _rounded(fitted.transform(clean.embeddings[rows]))
    ids, own = attacked.ids[moved].tolist(), attacked.labels[moved].tolist()
    first, second = _rounded(fitted.explained_variance_ratio_)
    return Plane(
        explained=(first, second),
        points=[(label, x, y) for label, (x, y) in zip(clean.labels[rows].tolist(), points, strict=True)],
        moves=[
            Move(id=i, label=label, before=(a[0], a[1]), after=(b[0], b[1]), hit=hits[i])
            for i, label, a, b in zip(ids, own, before, after, strict=True)
        ],
    )


def _rounded(values: NDArray[Any]) -> Any:
    return (np.round(values.astype(np.float64), 4) + 0.0).tolist()


def _found(run: Run, branch: str, name: str, images: Images, gallery: Images, ids: Ids) -> list[Found]:
    """What these queries of a set find."""
    embeddings = images.embeddings[images.rows(ids)]
    near = nearest_neighbours(
        embeddings, NEIGHBOURS, gallery=gallery.embeddings, gallery_ids=gallery.ids, ids=ids
    )
    ranks = _column(run, branch, name, "rank")
    found = []
    for query, own, rows in zip(ids.tolist(), embeddings, near, strict=True):
        rows = rows[rows >= 0]
        apart = np.linalg.norm(gallery.embeddings[rows].astype(np.float64) - own, axis=1)
        columns = gallery.ids[rows].tolist(), gallery.labels[rows].tolist(), _rounded(apart)
        neighbours = [Neighbour(id=i, label=k, distance=d) for i, k, d in zip(*columns, strict=True)]
        found.append(Found(rank=int(ranks[query]), neighbours=neighbours))
    return found


def _column(run: Run, branch: str, name: str, column: str) -> dict[int, Any]:
    """A column of queries.parquet, by id."""
    table = read_queries(run.queries, ["set", "branch", "id", column])
    rows = (np.asarray(table["set"]) == name) & (np.asarray(table["branch"]) == branch)
    found = table.filter(rows)
    return dict(zip(found["id"].to_pylist(), found[column].to_pylist(), strict=True))


def _pictures(stores: Iterable[ImageStore], ids: Iterable[int], transform: v2.Transform) -> dict[int, Pixels]:
    """The images with these ids as the network meets them, [C, H, W] in [0, 1], by id."""
    wanted, found = np.array(list(ids), dtype=np.int64), dict[int, Pixels]()
    for store in stores:
        rows = np.flatnonzero(np.isin(store.ids, wanted))
        if len(rows):
            images = load_images(store, rows, transform).numpy()
            found |= dict(zip(store.ids[rows].tolist(), images, strict=True))
    return found


def _encoded(image: Pixels, kind: Kind) -> str:
    """The file of a picture, of SIDE pixels at most, in base64."""
    levels = np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)
    picture = Image.fromarray(levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0))
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    file = io.BytesIO()
    picture.save(file, kind, **({"optimize": True} if kind == "png" else {"quality": 88, "subsampling": 0}))
    return base64.b64encode(file.getvalue()).decode()


def _class_name(stores: Iterable[ImageStore], label: int) -> str:
    return next(store.class_names[label] for store in stores if label in store.class_names)
