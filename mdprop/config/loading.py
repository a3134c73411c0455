"""params.yaml on disk: reading it, and saying in plain words all that is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from mdprop.config.problems import problem_lines
from mdprop.config.schema import Params
from mdprop.errors import ParameterError, ParameterErrors, one_line

MOST_BYTES = 2**20


def load_params(path: str | Path = "params.yaml") -> Params:
    """Read and check params.yaml.

    Raises `ParameterError`, a line for each problem, that names key, value and what is allowed.
    """
    path = Path(path)
    raw = _read(path)
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        lines = problem_lines(error, raw)
    raise ParameterError(f"{path}: {lines[0]}") if len(lines) == 1 else ParameterErrors(str(path), lines)


def _read(path: Path) -> dict[Any, Any]:
    try:
        if path.exists() and not path.is_file():
            raise ParameterError(f"{path} is no file: give the path of a params.yaml")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise ParameterError(f"{path} not found: run from the project's root") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ParameterError(f"{str(path)[:200]} cannot be read ({reason})") from None
    if len(content) > MOST_BYTES:
        raise ParameterError(f"{path} has more than {MOST_BYTES} bytes: give the path of a params.yaml")
    raw = _parse(path, content)
    if raw is None:
        raise ParameterError(f"{path} is empty: `git restore params.yaml` brings the default back")
    if not isinstance(raw, dict):
        raise ParameterError(
            f"{path}: sections with keys are needed, such as `train:`, not {type(raw).__name__}"
        )
    return raw


def _parse(path: Path, content: bytes) -> Any:
    try:
        return YAML(typ="safe", pure=True).load(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        reason = f"byte {error.start} is no text in UTF-8"
    except RecursionError:
        reason = "its values are nested too deep"
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        reason = f"{where}{error.problem or error.context}"
        if "'\\t'" in reason:
            reason += "; indent with spaces"
    except Exception as error:  # numbers, dates and tags that Python cannot make raise anything
        reason = str(error).partition(";")[0]
    raise ParameterError(f"{path} is not valid YAML: {one_line(reason)[:200]}")
