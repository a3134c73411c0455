"""params.yaml, and files like it, on disk: reading them, and saying in plain words all that is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from mdprop.config.problems import refused
from mdprop.config.schema import Params
from mdprop.errors import ParameterError, one_line
from mdprop.settings import Section

MOST_BYTES = 2**17  # the parser takes seconds for more
DEEPEST = 100  # brackets within each other, at which it is not slow yet

S = TypeVar("S", bound=Section)


def load_params(path: str | Path = "params.yaml") -> Params:
    """Read and check params.yaml.

    Raises `ParameterError`, a line for each problem, that names key, value and what is allowed.
    """
    return load_section(Path(path), Params, "params.yaml", "run from the project's root")


def load_section(path: Path, section: type[S], kind: str, where: str) -> S:
    """Read and check a file that holds one section; errors as of `load_params`.

    kind: what such a file is called. where: what to do where there is none.
    """
    raw = _read(path, kind, where)
    try:
        return section.model_validate(raw)
    except ValidationError as error:
        raise refused(str(path), error, raw, section) from None


def _read(path: Path, kind: str, where: str) -> dict[Any, Any]:
    try:
        if path.exists() and not path.is_file():
            raise ParameterError(f"{path} is no file: give the path of a {kind}")
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise ParameterError(f"{path} not found: {where}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ParameterError(f"{str(path)[:200]} cannot be read ({reason})") from None
    if len(content) > MOST_BYTES:
        raise ParameterError(f"{path} has more than {MOST_BYTES} bytes: give the path of a {kind}")
    raw = _parse(path, content)
    if raw is None:
        raise ParameterError(f"{path} is empty: `git restore {path.name}` brings it back")
    if not isinstance(raw, dict):
        such = "train" if kind == "params.yaml" else "runs"
        raise ParameterError(
            f"{path}: sections with keys are needed, such as `{such}:`, not {type(raw).__name__}"
        )
    return raw


def _parse(path: Path, content: bytes) -> Any:
    try:
        text = content.decode("utf-8")
        if _nested(text) > DEEPEST:
            raise RecursionError
        return YAML(typ="safe", pure=True).load(text)
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


def _nested(text: str) -> int:
    """How many brackets are open at once, at most; those in texts and comments count, too."""
    depth = most = 0
    for character in text:
        if character in "[{":
            depth += 1
            most = max(most, depth)
        elif character in "]}":
            depth -= 1
    return most
