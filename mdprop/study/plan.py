"""studies/<name>/study.yaml: the runs of a study and the tables that are made of them."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from mdprop.branches import CLEAN
from mdprop.config import load_params
from mdprop.config.problems import problem_lines
from mdprop.config.schema import Methods, Params
from mdprop.errors import ParameterError, one_line
from mdprop.presets import read_presets
from mdprop.runs import has_branch
from mdprop.settings import Name, Section, Seed, Text

Values = dict[str, Any]
"""Values of params.yaml by dotted key."""


class Group(Section):
    """Runs that differ by method, seed and the values of a grid; `params` hold for all of them."""

    methods: Annotated[tuple[Name, ...], Field(strict=False, min_length=1)]
    seeds: Annotated[tuple[Seed, ...], Field(strict=False, min_length=1)]
    params: Values = Field(default_factory=dict)
    grid: dict[str, list[Any]] = Field(default_factory=dict)


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
        names = [f"{key}={value}".replace("/", "-") for key, value in self.point]
        return Path(self.group, *([",".join(names)] if names else []))

    def __str__(self) -> str:
        return f"{self.place}/{self.method}/{self.seed}"


def read_study(path: Path) -> Study:
    """Read and check a study.yaml. Raises `ParameterError`, which names file, key and value."""
    try:
        raw = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ParameterError(f"{path} cannot be read ({error.strerror})") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParameterError(f"{path} is not valid YAML: {one_line(error)}") from None
    try:
        return Study.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        reasons = {"missing": "is missing", "extra_forbidden": "is no key of a study"}
        raise ParameterError(f"{path}: '{key}' {reasons.get(first['type'], first['msg'])}") from None


def units(study: Study) -> Iterator[Unit]:
    """All runs of a study, group by group, the first seed of each before its others."""
    for name, group in study.runs.items():
        points = [tuple(zip(group.grid, values, strict=True)) for values in product(*group.grid.values())]
        for seed, method, point in product(group.seeds, group.methods, points):
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
        _lay(content, presets[name])
    for values in (study.params, study.runs[unit.group].params, dict(unit.point)):
        _lay(content, values)
    content["seeds"] = [unit.seed]
    wanted, content["adversary"]["branches"] = content["adversary"]["branches"], [CLEAN]
    method = _checked(unit, content).method(unit.method)
    content["methods"] = {family: [] for family in Methods.model_fields} | {method.family: [unit.method]}
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
        raise ParameterError(f"{unit}: {problem_lines(error, dict(content))[0]}") from None


def _lay(content: dict[str, Any], values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        *parents, last = key.split(".")
        section = content
        for part in parents:
            section = section.setdefault(part, {})
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
