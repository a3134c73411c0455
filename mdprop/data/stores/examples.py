"""A few queries of a run with their pictures, and a plane through its embeddings: what the page shows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from mdprop.errors import ResultError
from mdprop.files import read_sealed_json, sealed_json, write_files

REMEDY = "run `dvc repro`"

Kind = Literal["png", "jpeg"]
"""Of pictures."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Neighbour(_Record):
    """An image of the gallery, and its Euclidean distance from the query's embedding."""

    id: int
    label: int
    distance: float


class Found(_Record):
    """What a query finds: the rank of the first image of its class (0: none within the depth searched)."""

    rank: int
    neighbours: list[Neighbour]


class Attack(_Record):
    """The attacked query: what it finds, and its pictures in base64; the perturbation is amplified."""

    found: Found
    picture: str
    perturbation: str


class Query(_Record):
    """attack: None where the run has no attack to show."""

    id: int
    label: int
    clean: Found
    attack: Attack | None


class Move(_Record):
    """Where an attack takes a query in the plane: (x, y) before and after, and whether it then hits."""

    id: int
    label: int
    before: tuple[float, float]
    after: tuple[float, float]
    hit: bool


class Plane(_Record):
    """The first two principal components of the clean embeddings of some classes.

    explained: the shares of the variance that they have. points: label, x, y of each clean image.
    """

    explained: tuple[float, float]
    points: list[tuple[int, float, float]]
    moves: list[Move]


class Examples(_Record):
    """The same queries and classes in every run of one data set and one suite of attacks.

    input_set: the attack that is shown, None where the run meets none to show.
    amplified: by how much the pictures of perturbations are; grey is no change.
    pictures: of queries and neighbours, by id, in base64. classes: names by label.
    """

    branch: str
    input_set: str | None
    kind: Kind
    amplified: int
    classes: dict[int, str]
    queries: list[Query]
    plane: Plane | None
    pictures: dict[int, str]


def write_examples(path: Path, examples: Examples) -> None:
    """Write sealed JSON; the same examples, the same bytes."""
    write_files({path: sealed_json(examples.model_dump(mode="json"))})


def read_examples(path: Path) -> Examples:
    """Read a file of `write_examples`. Raises `ResultError` for one that is missing, damaged or malformed."""
    content: Mapping[str, object] = read_sealed_json(path, REMEDY)
    try:
        return Examples.model_validate_json(json.dumps(content))
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        what = f"{path} holds no examples of this version ({where}: {error.errors()[0]['msg']})"
        raise ResultError(f"{what}: delete it and {REMEDY}") from None
