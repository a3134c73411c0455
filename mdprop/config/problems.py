"""What pydantic finds wrong with params.yaml, and files like it, in the words of those files."""

from __future__ import annotations

import difflib
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from mdprop.attacks.threat import Threat
from mdprop.config.schema import Params
from mdprop.data.readers import settings_class
from mdprop.errors import ParameterError, ParameterErrors
from mdprop.methods import Slice
from mdprop.settings import Refusals, Section

LONGEST_LINE = 400
LONGEST_VALUE = 60
LONGEST_KEY = 100

_WORDS = {
    "bool_type": "true or false is needed",
    "string_type": "a text is needed",
    "string_unicode": "a text without broken characters is needed",
    "string_too_short": "a text is needed, not an empty one",
    "string_too_long": "a shorter text is needed",
    "string_pattern_mismatch": "letters, digits, _ and - are allowed, at most 64",
    "invalid_key": "a key must be a text: put it in quotes",
    "tuple_type": "a list is needed, such as [a, b]",
    "list_type": "a list is needed, such as [a, b]",
    "too_short": "the list is empty; at least one is needed",
    "dict_type": "keys with values are needed",
    "model_type": "keys with values are needed",
    "none_required": "null is needed",
}

Place = tuple[int | str, ...]


def refused(
    name: str, error: ValidationError, raw: dict[Any, Any], whole: type[Section] = Params
) -> ParameterError:
    """What is wrong with the file, or the run, of this name, in as many lines as `problem_lines` finds."""
    lines = problem_lines(error, raw, whole)
    return ParameterError(f"{name}: {lines[0]}") if len(lines) == 1 else ParameterErrors(name, lines)


def problem_lines(error: ValidationError, raw: dict[Any, Any], whole: type[Section] = Params) -> list[str]:
    """A line for each finding: key, value, what is allowed; unknown keys before all others.

    whole: the section that the file holds.
    """
    found = error.errors(include_url=False)
    unknown = [p for p in found if p["type"] == "extra_forbidden"]
    misspelt = {
        (*p["loc"][:-1], key)
        for p in unknown
        for key in difflib.get_close_matches(str(p["loc"][-1]), _allowed_keys(p["loc"][:-1], raw, whole))
    }
    rest = [p for p in found if p not in unknown and not (p["type"] == "missing" and p["loc"] in misspelt)]
    lines = [line for problem in [*unknown, *rest] for line in _lines(problem, raw, whole)]
    return [
        _printable(textwrap.shorten(line, LONGEST_LINE, placeholder=" ...")) for line in dict.fromkeys(lines)
    ]


def _lines(problem: Any, raw: dict[Any, Any], whole: type[Section]) -> Iterator[str]:
    place: Place = tuple(part for part in problem["loc"] if part != "[key]")
    kind = problem["type"]
    if kind == "too_short" and problem["input"]:
        return  # of a list whose items are refused themselves
    if kind == "extra_forbidden":
        allowed = ", ".join(_allowed_keys(place[:-1], raw, whole))
        yield f"unknown key '{_shown_key(place)}'; allowed here: {allowed}"
    elif kind == "missing" and isinstance(place[-1], str):
        yield f"key '{_shown_key(place)}' is missing: add it"
    elif kind == "value_error" and isinstance(problem["ctx"]["error"], Refusals):
        for refused in problem["ctx"]["error"].problems:
            keys = tuple(int(k) if k.isdecimal() else k for k in refused.key.split(".") if k)
            yield _line(_origin((*place, *keys), raw), str(refused), raw)
    elif len(place) < len(problem["loc"]):
        yield f"{_shown_key(place)}: {_words(problem)}"
    else:
        yield _line(_origin(place, raw), _words(problem), raw)


def _line(place: Place, words: str, raw: dict[Any, Any]) -> str:
    value = raw
    for part in place:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return f"{_shown_key(place)}: {words}"
    key = _shown_key(place)
    if not key:
        return words
    shown = "" if isinstance(value, (dict, BaseModel)) and value else f" = {_shown(value)}"
    return f"{key}{shown}: {words}"


def _words(problem: Any) -> str:
    """What is allowed. pydantic's own words are for programmers."""
    kind, context = problem["type"], problem.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "string_pattern_mismatch" and "/" in context["pattern"]:
        return "a run is needed, such as standard/0"
    if kind == "literal_error":
        return f"{context['expected'].replace(chr(39), '')} is needed"
    if kind == "too_long":
        return f"at most {context['max_length']} are allowed"
    if kind == "string_too_long":
        return f"a text of at most {context['max_length']} characters is needed"
    return _WORDS.get(kind, "this is not allowed here")


def _origin(place: Place, raw: dict[Any, Any]) -> Place:
    """Where a value stands: what a set of `adversary` leaves out it has from `adversary`."""
    if place[:2] == ("adversary", "sets") and len(place) > 3:
        own: Any = raw["adversary"]["sets"].get(place[2])
        if isinstance(own, dict) and place[3] not in own and place[3] in raw["adversary"]:
            return ("adversary", *place[3:])
    return place


def _shown_key(place: Sequence[int | str]) -> str:
    return _printable(_clipped(".".join(map(str, place)), LONGEST_KEY))


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    try:
        return _clipped(repr(value), LONGEST_VALUE)
    except (RecursionError, ValueError):  # of an integer of thousands of digits
        return "..."


def _clipped(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _allowed_keys(path: Sequence[int | str], raw: Any, whole: type[Section]) -> list[str]:
    """The keys of the section at a path of the file."""
    if whole is Params:
        if path[:1] == ("datasets",):
            return list(settings_class(raw["datasets"][path[1]]).model_fields)
        if path[:1] == ("recipes",):
            return list(Slice.model_fields)
        if path[:2] == ("adversary", "sets"):
            return list(Threat.model_fields)
    section: Any = whole
    for key in path:
        inner = get_args(section)
        section = inner[1] if inner else section.model_fields[str(key)].annotation
    return list(section.model_fields)
