"""params.yaml on disk: reading it, and saying in one line what is wrong with it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from mdprop.config.schema import READERS, Params
from mdprop.errors import ParameterError, one_line


def load_params(path: str | Path = "params.yaml") -> Params:
    """Read and check params.yaml.

    Under DVC (`$DVC_STAGE` is set) the result holds only what the stage's entry in dvc.yaml
    declares, so that a stage which reads more than it declares fails instead of being cached
    wrongly. Raises `ParameterError`, one line that names file, key, value and what is allowed.
    """
    path = Path(path)
    try:
        raw = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParameterError(f"{path} not found: run from the project's root") from None
    except OSError as error:
        raise ParameterError(f"{path} cannot be read ({error.strerror})") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParameterError(f"{path} is not valid YAML: {one_line(error)}") from None
    try:
        params = Params.model_validate(raw)
    except ValidationError as error:
        raise ParameterError(f"{path}: {_first_problem(error)}") from None
    stage = os.environ.get("DVC_STAGE")
    declared = declared_params(path.with_name("dvc.yaml"), stage, params.dataset.name) if stage else None
    return params if declared is None else _restrict(params, declared)


def declared_params(dvc_yaml: Path, stage: str, dataset: str) -> list[str] | None:
    """The parameter paths that a stage of dvc.yaml declares; None where it cannot be told."""
    if not dvc_yaml.exists():
        return None
    stages = YAML(typ="safe").load(dvc_yaml.read_text(encoding="utf-8"))["stages"]
    entry = stages.get(stage.split(":")[-1].split("@")[0])
    if entry is None:
        return None
    return [str(p).replace("${dataset.name}", dataset) for p in entry.get("params", [])]


def _restrict(section: Any, paths: list[str]) -> Any:
    """A copy of a section without the keys that no path leads to; reading one is an AttributeError."""
    if "" in paths or not isinstance(section, (BaseModel, dict)):
        return section
    kept: dict[str, Any] = {}
    for key, value in section.items() if isinstance(section, dict) else section:
        below = [p[len(key) + 1 :] for p in paths if p == key or p.startswith(f"{key}.")]
        if below:
            kept[key] = _restrict(value, below)
    return kept if isinstance(section, dict) else type(section).model_construct(**kept)


def _first_problem(error: ValidationError) -> str:
    """The first of pydantic's findings as one line; a misspelt key before what it leaves missing."""
    problems = error.errors(include_url=False)
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    where = list(problem["loc"])
    allowed = _allowed_keys(where[:-1]) if problem["type"] == "extra_forbidden" else []
    if where[:1] == ["datasets"] and len(where) > 2:
        del where[2]  # the reader, which pydantic puts into the path
    key = ".".join(str(part) for part in where)
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{key}'; allowed here: {', '.join(allowed)}"
    if problem["type"] == "union_tag_not_found":
        key += ".reader"
    if problem["type"] in ("missing", "union_tag_not_found"):
        return f"key '{key}' is missing: add it"
    message = problem["msg"].removeprefix("Value error, ")
    message = (message[:1].lower() + message[1:]).replace("valid tuple", "list")
    value = problem["input"]
    shown = "" if isinstance(value, (dict, BaseModel)) else f" = {value!r}"
    return f"{key}{shown}: {message}" if key else message


def _allowed_keys(path: list[int | str]) -> list[str]:
    """The keys of the section at a path of pydantic's, which names the reader of a data set."""
    section: Any = Params
    if path[:1] == ["datasets"]:
        section = READERS[str(path[2])]
    else:
        for key in path:
            section = section.model_fields[str(key)].annotation
    return list(section.model_fields)
