"""params.yaml on disk: reading it, and saying in one line what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from mdprop.attacks.threat import Threat
from mdprop.config.schema import Params
from mdprop.data.readers import settings_class
from mdprop.errors import ParameterError, one_line
from mdprop.methods import Slice


def load_params(path: str | Path = "params.yaml") -> Params:
    """Read and check params.yaml.

    Raises `ParameterError`, one line that names file, key, value and what is allowed.
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
        return Params.model_validate(raw)
    except ValidationError as error:
        raise ParameterError(f"{path}: {_first_problem(error, raw)}") from None


def _first_problem(error: ValidationError, raw: Any) -> str:
    """The first of pydantic's findings as one line; a misspelt key before what it leaves missing."""
    problems = error.errors(include_url=False)
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    where = list(problem["loc"])
    key = ".".join(str(part) for part in where if part != "[key]")
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{key}'; allowed here: {', '.join(_allowed_keys(where[:-1], raw))}"
    if problem["type"] == "missing":
        return f"key '{key}' is missing: add it"
    if problem["type"] == "string_pattern_mismatch":
        return f"{key} = {problem['input']!r}: letters, digits, _ and - are allowed, at most 64"
    message = problem["msg"].removeprefix("Value error, ")
    message = (message[:1].lower() + message[1:]).replace("valid tuple", "list")
    value = problem["input"]
    shown = "" if isinstance(value, (dict, BaseModel)) else f" = {value!r}"
    return f"{key}{shown}: {message}" if key else message


def _allowed_keys(path: list[int | str], raw: Any) -> list[str]:
    """The keys of the section at a path of params.yaml."""
    if path[:1] == ["datasets"]:
        return list(settings_class(raw["datasets"][path[1]]).model_fields)
    if path[:1] == ["recipes"]:
        return list(Slice.model_fields)
    if path[:2] == ["adversary", "sets"]:
        return list(Threat.model_fields)
    section: Any = Params
    for key in path:
        section = section.model_fields[str(key)].annotation
    return list(section.model_fields)
