"""What the sections of params.yaml have in common; each section's class lives with what it sets.

A number's type says what is allowed, and so does the one line that refuses another value. The upper
ends are what no one needs; what more data or memory would allow is not held against a setting here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from mdprop.errors import ParameterError

_FRACTION = re.compile(r"(\d{1,20}(?:\.\d{1,20})?)(?:/(\d{1,20}))?")


class Refused(ValueError):
    """What a section refuses, for the value of `key`, one of its own; "": for several together."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(reason)
        self.key = key


class Refusals(ValueError):
    """All that a section refuses once its values have been looked at one by one."""

    def __init__(self, problems: Sequence[Refused]) -> None:
        super().__init__("; ".join(f"{p.key}: {p}" if p.key else str(p) for p in problems))
        self.problems = problems


def alike(names: Iterable[str]) -> list[str]:
    """Those that differ from an earlier one by case only: some file systems take the two for one."""
    seen: dict[str, str] = {}
    return [name for name in names if seen.setdefault(name.casefold(), name) != name]


def whole(least: int, most: int, *, or_zero: bool = False) -> BeforeValidator:
    """A whole number from `least` to `most`."""
    needed = f"{'0, or ' if or_zero else ''}a whole number from {least} to {most}"

    def check(value: Any) -> Any:
        known = isinstance(value, int) and not isinstance(value, bool)
        if not known or not (least <= value <= most or (or_zero and value == 0)):
            raise ValueError(f"{needed} is needed")
        return value

    return BeforeValidator(check)


def number(least: float, most: float, *, like: str = "") -> BeforeValidator:
    """A number from `least` to `most`; with `like`, an example, also as text that is a fraction."""

    def check(value: Any) -> Any:
        read = _number(value) if like else value
        if isinstance(read, bool) or not isinstance(read, (int, float)) or not least <= read <= most:
            example = f", such as {like}," if like else ""
            raise ValueError(f"a number from {least:g} to {most:g}{example} is needed")
        return float(read)

    return BeforeValidator(check)


def fraction(value: Any) -> Fraction | None:
    """1/2 and 0.5, as numbers or as text; None for anything else.

    The text is matched first: Python would compute a fraction of 1e999999999 to its last digit.
    """
    text = str(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else ""
    found = _FRACTION.fullmatch(text.strip())
    if not found or (found[2] and not int(found[2])):
        return None
    return Fraction(found[1]) / int(found[2] or 1)


def _number(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    exact = fraction(value)
    if exact is not None:
        return float(exact)
    try:
        return float(value)
    except ValueError:
        return value


def _path(text: str) -> str:
    sizes = [len(part.encode("utf-8", "surrogatepass")) for part in text.split("/")]
    if len(text) > 4000 or max(sizes) > 255 or any(character < " " for character in text):
        raise ValueError("a path of at most 4000 characters, 255 between two slashes, is needed")
    return text


def expanded(path: str, key: str) -> Path:
    """A path with its ~ filled in; `ParameterError` names the key where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        user = path.partition("/")[0]
        raise ParameterError(f"{key} = {path!r}: no home of {user} is known; write the whole path") from None


Seed = Annotated[int, whole(0, 2**32 - 1)]
Share = Annotated[float, number(0.0001, 1)]
Steps = Annotated[int, whole(1, 10_000)]
Restarts = Annotated[int, whole(1, 100)]
Targets = Annotated[int, whole(1, 1000)]
Text = Annotated[str, Field(min_length=1, max_length=200)]
FilePath = Annotated[str, Field(min_length=1), AfterValidator(_path)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
"""Of a data set, a method, a set, a slice, a branch: a part of file names."""

Radius = Annotated[float, number(0, 10_000, like="4/255")]
"""In [0, 1] pixels or standard deviations; see `too_large`."""

Units = Literal["pixel", "normalized"]
"""Of a radius: pixels in [0, 1], or standard deviations of a channel."""

Norm = Literal["linf", "l2"]

OptimizerName = Literal["pgd", "apgd", "square", "noise"]

_LARGEST: dict[str, tuple[float, str]] = {
    "pixel": (1, "pixels of [0, 1]"),
    "normalized": (20, "standard deviations of a channel"),
}


def too_large(key: str, radius: float | None, units: Units, norm: Norm = "linf") -> Iterator[Refused]:
    """A refusal of a radius that takes every pixel beyond its range, wherever it starts."""
    most, meaning = _LARGEST[units]
    if radius is not None and norm == "linf" and radius > most:
        yield Refused(key, f"a number from 0 to {most:g} is needed, in {meaning} (units: {units})")


class Section(BaseModel):
    """A frozen, typed part of params.yaml; unknown keys and wrong types are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def problems(self) -> Iterator[Refused]:
        """What does not go together, where each value for itself is allowed."""
        return iter(())

    @model_validator(mode="after")
    def _goes_together(self) -> Section:
        found = list(self.problems())
        if found:
            raise Refusals(found)
        return self
