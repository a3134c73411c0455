"""The images of an index that are nearest to others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mdprop.data.readers.entries import as_text
from mdprop.deploy.index import ImageIndex
from mdprop.deploy.pictures import embed_files, image_file, images_in, refuse
from mdprop.deploy.trained import Trained
from mdprop.errors import DataError, ParameterError
from mdprop.metrics.neighbours import nearest_neighbours


@dataclass(frozen=True)
class Neighbour:
    """name: of an image of the index. distance: Euclidean, of unit vectors."""

    name: str
    cosine: float
    distance: float


@dataclass(frozen=True)
class Answer:
    """name: of the query, as it is shown. file: where it is. neighbours: the nearest first."""

    name: str
    file: Path
    neighbours: list[Neighbour]


def search(
    index: ImageIndex, queries: Path, k: int, *, model: Path | None = None, branch: str | None = None
) -> list[Answer]:
    """The `k` images of the index that are nearest to an image, or to each in and below a folder.

    Exact, in the pipeline's order: of equal distances the earlier name first. A query that is one of the
    indexed files is not its own neighbour.

    model, branch: of the network that embeds the queries; None: those that made the index, which others
        are refused for.

    Raises `DataError` for queries that cannot be used and for another model, branch or preprocessing,
    `ParameterError` for a `k` that is larger than the index.
    """
    if k > len(index):
        raise ParameterError(f"-k {k} is more than the {len(index):,} images of {index.folder}: lower it")
    home = model or Path(index.maker["folder"])
    if model is None and not home.is_dir():
        raise DataError(f"the model of {index.folder}, {home}, is gone: say where it is now with --model")
    trained = Trained.at(home, branch or index.maker["branch"])
    index.refuse_other(trained)
    entries = images_in(queries) if queries.is_dir() else [image_file(queries)]
    kept, vectors, errors = embed_files(trained, entries, "embedding queries")
    refuse(errors, len(entries), "mend or remove them")
    base = queries if queries.is_dir() else Path()
    files = [base / entry.name for entry in kept]
    rows = nearest_neighbours(
        vectors, k, gallery=index.vectors, gallery_ids=np.arange(len(index)), ids=_own_rows(index, files)
    )
    return [
        Answer(entry.path, file, _neighbours(index, vector, found[found >= 0]))
        for entry, file, vector, found in zip(kept, files, vectors, rows, strict=True)
    ]


def as_table(answers: Sequence[Answer]) -> str:
    """A block a query: rank, name, cosine and distance of each neighbour."""
    names = [as_text(near.name) for answer in answers for near in answer.neighbours]
    width = max(map(len, ["image", *names]))
    lines = []
    for answer in answers:
        lines += [f"{answer.name}", f"  {'':>3}  {'image':<{width}}  cosine  distance"]
        for rank, near in enumerate(answer.neighbours, 1):
            shown = f"{as_text(near.name):<{width}}"
            lines.append(f"  {rank:>3}  {shown}  {near.cosine:6.3f}  {near.distance:8.3f}")
    return "\n".join(lines)


def as_record(index: ImageIndex, answers: Sequence[Answer]) -> dict[str, Any]:
    """What `--json` prints; images by their paths below `images`."""
    return {
        "index": str(index.folder),
        "images": str(index.images),
        "model": index.maker,
        "queries": [
            {
                "query": answer.name,
                "neighbours": [
                    {"image": as_text(near.name), "cosine": near.cosine, "distance": near.distance}
                    for near in answer.neighbours
                ],
            }
            for answer in answers
        ],
    }


def _own_rows(index: ImageIndex, files: Sequence[Path]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The row of each query that is a file of the index, -1 of others."""
    rows = {name: row for row, name in enumerate(index.names)}
    root = os.path.realpath(index.images)
    names = [os.path.relpath(os.path.realpath(file), root).replace(os.sep, "/") for file in files]
    return np.array([rows.get(name, -1) for name in names])


def _neighbours(index: ImageIndex, query: Any, rows: Any) -> list[Neighbour]:
    near = index.vectors[rows].astype(np.float64)
    cosines = near @ query.astype(np.float64)
    distances = np.linalg.norm(near - query, axis=1)
    found = zip(rows.tolist(), cosines.tolist(), distances.tolist(), strict=True)
    return [Neighbour(index.names[row], cosine, distance) for row, cosine, distance in found]
