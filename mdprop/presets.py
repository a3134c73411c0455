"""The paper's settings, and others, by name: presets.yaml laid over params.yaml."""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from mdprop.config import load_params
from mdprop.errors import ParameterError, one_line
from mdprop.files import whole_file

Preset = Mapping[str, Any]
"""Values of params.yaml by dotted key."""


PRESETS = Path(__file__).with_name("presets.yaml")


def read_presets(path: Path = PRESETS) -> dict[str, Preset]:
    """The presets of a file by name, without its parts, whose names begin with "_".

    Raises `ParameterError` for a file that is missing or malformed.
    """
    content = _read(path)
    for name, values in content.items():
        if not isinstance(values, Mapping):
            raise ParameterError(f"{path}: '{name}' must be a mapping of params.yaml's keys to values")
    return {name: values for name, values in content.items() if not name.startswith("_")}


def apply_presets(params: Path, presets: Mapping[str, Preset], names: Sequence[str]) -> list[str]:
    """Write the values of some presets, a later one over an earlier one, into a params.yaml.

    Comments and all other values stay. Returns the keys whose values changed. Raises
    `ParameterError`, and leaves the file as it was, for an unknown name or key, or where the result
    is not valid.
    """
    for name in names:
        if name not in presets:
            raise ParameterError(f"unknown preset '{name}'; known: {', '.join(presets)}")
    content = _read(params)
    changed = []
    for name in names:
        for key, value in presets[name].items():
            *parents, last = key.split(".")
            section: Any = content
            for part in parents:
                section = section.get(part) if isinstance(section, dict) else None
            if not isinstance(section, dict) or last not in section:
                raise ParameterError(
                    f"preset '{name}': {params} has no key '{key}'; add it, or mend the preset"
                )
            if section[last] != value:
                section[last] = copy.deepcopy(value)
                changed.append(key)
    with whole_file(params) as partial:
        partial.write_text(_dump(content), encoding="utf-8", newline="\n")
        try:
            load_params(partial)
        except ParameterError as error:
            problem = str(error).removeprefix(f"{partial}: ").removeprefix(f"{partial} ")
            raise ParameterError(f"{params} with preset {', '.join(names)}: {problem}") from None
    return list(dict.fromkeys(changed))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = YAML().load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ParameterError(
            f"{path} cannot be read ({error.strerror}): run from the project's root"
        ) from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParameterError(f"{path} is not valid YAML: {one_line(error)}") from None
    if not isinstance(content, dict):
        raise ParameterError(f"{path} must be a mapping of names to values")
    return content


def _dump(content: Mapping[str, Any]) -> str:
    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(
        type(None), lambda representer, _: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    stream = io.StringIO()
    yaml.dump(content, stream)
    return stream.getvalue()
