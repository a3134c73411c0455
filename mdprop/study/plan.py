"""studies/<name>/study.yaml: the runs of a study and the tables that are made of them."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from ruamel.yaml import YAML

from mdprop.branches import CLEAN, parse_branch
from mdprop.config import load_params
from mdprop.config.loading import load_section
from mdprop.config.problems import refused
from mdprop.config.schema import Methods, Params
from mdprop.errors import ParameterError
from mdprop.presets import read_presets
from mdprop.runs import has_branch
from mdprop.settings import Name, Refused, Section, Seed, Text, alike

Values = dict[str, Any]
"""Values of params.yaml by dotted key."""


MOST_RUNS = 10_000
"""Of a group."""


class Group(Section):
    """Runs that differ by method, seed and the values of a grid; `params` hold for all of them."""

    methods: Annotated[tuple[Name, ...], Field(strict=False, min_length=1)]
    seeds: Annotated[tuple[Seed, ...], Field(strict=False, min_length=1)]
    params: Values = Field(default_factory=dict)
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)

    def problems(self) -> Iterator[Refused]:
        """Runs that would be made twice, or in one place, and values that are not those of a run."""
        for key in ("methods", "seeds"):
            if len(set(getattr(self, key))) != len(getattr(self, key)):
                yield Refused(key, "names one twice: name it once")
        yield from _not_of_a_run("params", self.params)
        yield from _not_of_a_run("grid", self.grid)
        if math.prod(map(len, (self.methods, self.seeds, *self.grid.values()))) > MOST_RUNS:
            yield Refused("grid", f"makes more than {MOST_RUNS} runs: leave out values")
            return
        seen: set[str] = set()
        for point in self.points:
            place = place_name(point)
            if len(place.encode("utf-8", "replace")) > 255 or not place.isprintable():
                yield Refused("grid", f"{place[:40]!r}... is no name of a folder: use shorter values")
            if place.casefold() in seen:
                yield Refused("grid", f"two points are called {place}: leave one of them out")
            seen.add(place.casefold())

    @property
    def points(self) -> list[tuple[tuple[str, Any], ...]]:
        """Of the grid: a value for each of its keys."""
        return [tuple(zip(self.grid, values, strict=True)) for values in product(*self.grid.values())]


def place_name(point: Sequence[tuple[str, Any]]) -> str:
    """The folder of a point's runs; that of no keys has no name."""
    return ",".join(f"{key}={value}".replace("/", "-") for key, value in point)


def _not_of_a_run(field: str, values: Values) -> Iterator[Refused]:
    for key, value in values.items():
        if key.partition(".")[0] in ("methods", "seeds"):
            yield Refused(field, f"{key} is not read: a run has the method and the seed of its group")
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            yield Refused(field, f"{key} holds what is no text, number, list or keys with values")


class Table(Section):
    """Rows of stored runs by columns of input sets.

    rows: label -> <group>/<method>, or <group>/<key>=<value>/<method> of a grid; @<branch> behind it,
        <study>: before it, for runs of another study.
    columns: label -> input set, whose Recall@1 is shown, or <input set>.<metric>. Several input sets,
        `a & b`: the share of queries that are right in all of them, the worst case of those attacks.
    against: the label of the row that others are compared with, or of each row: label -> label.
    attacked: how, where the input set is not clean.
    """

    rows: dict[str, Text]
    columns: dict[str, Text]
    against: str | dict[str, str] | None = None
    attacked: Literal["ratio", "difference"] = "difference"

    def reference(self, label: str) -> str | None:
        """The label of the row that a row is compared with."""
        found = self.against.get(label) if isinstance(self.against, dict) else self.against
        return None if found == label else found


class Plot(Section):
    """Clean against attacked Recall@1: curves of rows, and what is attacked, are written as in a table."""

    title: Text
    attacked: Text
    curves: dict[str, dict[str, Text]]


class Study(Section):
    """A study; presets and params are laid over params.yaml, then a group's params, then its grid."""

    about: Text
    presets: Annotated[tuple[Name, ...], Field(strict=False)] = ()
    params: Values = Field(default_factory=dict)
    runs: dict[Name, Group]
    tables: dict[Name, Table] = Field(default_factory=dict)
    plots: dict[Name, Plot] = Field(default_factory=dict)

    def problems(self) -> Iterator[Refused]:
        """Groups have folders of their names, which some systems do not tell apart by case."""
        yield from _not_of_a_run("params", self.params)
        for name in alike(self.runs):
            yield Refused("runs", f"'{name}' differs from another group by case only: rename one")


@dataclass(frozen=True)
class Unit:
    """One training and what it met: a method and a seed at one point of a group's grid."""

    group: str
    point: tuple[tuple[str, Any], ...]
    method: str
    seed: int

    @property
    def place(self) -> Path:
        """Below the study's results: where the runs of its group and point are."""
        return Path(self.group, place_name(self.point))

    def __str__(self) -> str:
        return f"{self.place}/{self.method}/{self.seed}"


def read_study(path: Path) -> Study:
    """Read and check a study.yaml. Raises `ParameterError`, a line for each problem, as `load_params`."""
    return load_section(path, Study, "study.yaml", "name a folder of studies/ that has one")


def units(study: Study) -> Iterator[Unit]:
    """All runs of a study, group by group, the first seed of each before its others."""
    for name, group in study.runs.items():
        for seed, method, point in product(group.seeds, group.methods, group.points):
            yield Unit(name, point, method, seed)


def unit_params(study: Study, unit: Unit, base: Mapping[str, Any]) -> tuple[dict[str, Any], Params]:
    """The params.yaml of a run, of its method and seed alone, as plain values and checked.

    Of adversary.branches those stay that the method has.
    base: the project's params.yaml. Raises `ParameterError` for a value that it does not take.
    """
    presets, content = read_presets(), copy.deepcopy(dict(base))
    for name in study.presets:
        if name not in presets:
            raise ParameterError(f"unknown preset '{name}'; known: {', '.join(presets)}")
        _lay(content, presets[name], name)
    for values in (study.params, study.runs[unit.group].params, dict(unit.point)):
        _lay(content, values, str(unit))
    content["seeds"] = [unit.seed]
    wanted = _answering(content)
    method = _checked(unit, content).method(unit.method)
    content["methods"] = {family: [] for family in Methods.model_fields} | {method.family: [unit.method]}
    if wanted:
        content["adversary"]["branches"] = [b for b in wanted if has_branch(method.branches, b)] or [CLEAN]
    return json.loads(json.dumps(content)), _checked(unit, content)


def settings(params: Params, method: str) -> Values:
    """What decides the result of a run, by dotted key: what is compared before a run counts as done."""
    sections = {"dataset": True, "adversary": True, "corruptions": True, "evaluate": True}
    read = params.read_by_training(params.method(method))
    read |= params.model_dump(mode="json", include=sections, exclude_unset=True)
    return dict(_flat(read))


def _checked(unit: Unit, content: Mapping[str, Any]) -> Params:
    try:
        return Params.model_validate(copy.deepcopy(content))
    except ValidationError as error:
        raise refused(str(unit), error, dict(content)) from None


def _answering(content: dict[str, Any]) -> list[str]:
    """adversary.branches, with the clean one in their place; none where they are for a check to refuse."""
    adversary = content.get("adversary")
    branches = adversary.get("branches") if isinstance(adversary, dict) else None
    try:
        known = [parse_branch(branch) for branch in branches] if isinstance(branches, list) else []
    except (TypeError, ValueError):
        return []
    if known:
        content["adversary"] = {**content["adversary"], "branches": [CLEAN]}
    return list(branches) if known and branches else []


def _lay(content: dict[str, Any], values: Mapping[str, Any], name: str) -> None:
    for key, value in values.items():
        *parents, last = key.split(".")
        section = content
        for part in parents:
            section = section.setdefault(part, {})
            if not isinstance(section, dict):
                raise ParameterError(f"{name}: unknown key '{key}': {part} has no keys below it")
        section[last] = copy.deepcopy(value)


def _flat(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def project_params(path: Path) -> dict[str, Any]:
    """A valid params.yaml as plain values. Raises `ParameterError`."""
    load_params(path)
    return dict(YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8")))
