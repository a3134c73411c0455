"""Options from a parameter file, held against what a constructor takes."""

from __future__ import annotations

import inspect
import json
import textwrap
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import nn

from mdprop.errors import ParameterError, one_line
from mdprop.losses.library import Choice

NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})
NEEDED = inspect.Parameter.empty

# Strings that a constructor takes without a look at them.
WORDS = {"triplets_per_anchor": ("all",), "type_of_triplets": ("all", "hard", "semihard", "easy")}

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)

# Parameters that come from the model, the data or this package, and their names here.
FILLED = {
    "num_classes": "num_classes",
    "embedding_dim": "embedding_dim",
    "embedding_size": "embedding_dim",
    "descriptors_dim": "embedding_dim",
    "feature_dim": "feature_dim",
    "build_part": "build_part",
}


def named_parameters(choice: Choice) -> dict[str, Any]:
    """The named parameters of a constructor with their defaults; `NEEDED` where there is none."""
    found: dict[str, Any] = {}
    for make in (choice.make, *choice.also):
        for name, parameter in inspect.signature(make).parameters.items():
            if parameter.kind in _NAMED:
                found.setdefault(name, parameter.default)
    return found


def options_of(choice: Choice) -> dict[str, Any]:
    """What a parameter file may set, with defaults."""
    return {name: default for name, default in named_parameters(choice).items() if name not in FILLED}


def describe(name: str, default: Any) -> str:
    """`margin=0.2`, or `margin (needed)`; true, false and null as a parameter file has them."""
    if default is NEEDED:
        return f"{name} (needed)"
    if isinstance(default, Mapping):
        default = dict(default)
    return f"{name}={default if isinstance(default, str) else json.dumps(default)}"


def construct(
    key: str, name: str, choice: Choice, options: Mapping[str, Any], given: Mapping[str, Any]
) -> nn.Module:
    """Make the loss or miner `name` with `options`, those of the key `key`, and what is `given`.

    Raises `ParameterError` for an unknown option, a missing one, a value of the wrong type, and
    for what the constructor itself refuses.
    """
    known = options_of(choice)
    having = f"it has: {', '.join(describe(*item) for item in known.items())}" if known else "it has none"
    for option, value in options.items():
        if option not in known:
            raise ParameterError(f"{key}: {name} has no option '{option}'; {having}")
        needed = _mismatch(option, known[option], value)
        if needed:
            raise ParameterError(f"{key}.{option} = {value!r}: {needed} is needed; {having}")
    missing = [option for option, default in known.items() if default is NEEDED and option not in options]
    if missing:
        raise ParameterError(f"{key}: {name} needs {' and '.join(missing)}; {having}")
    filled = {p: given[FILLED[p]] for p in named_parameters(choice) if p in FILLED}
    try:
        return choice.make(**filled, **options)
    except (AssertionError, ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        raise refusal(key, name, options, error) from error


def refusal(key: str, name: str, options: Mapping[str, Any], error: Exception) -> ParameterError:
    """The one line for values that a loss or miner itself refuses."""
    given = ", ".join(f"{option}={value!r}" for option, value in options.items())
    reason = textwrap.shorten(one_line(error), 160) or type(error).__name__
    return ParameterError(f"{key}: {name} refuses {given or 'its defaults'}: {reason}")


def _mismatch(option: str, default: Any, value: Any) -> str | None:
    """What is needed instead of `value`, going by the default; None where it will do."""
    number = _is_number(value)
    numbers = isinstance(value, (list, tuple)) and all(_is_number(v) for v in value)
    if isinstance(default, bool):
        fits, needed = isinstance(value, bool), "true or false"
    elif isinstance(default, str):
        words = WORDS.get(option)
        countable = option == "triplets_per_anchor"
        fits = (isinstance(value, str) and (words is None or value in words)) or (countable and number)
        needed = f"{'a number or ' if countable else ''}{' or '.join(words) if words else 'a string'}"
    elif isinstance(default, tuple):
        fits, needed = numbers, "a list of numbers"
    elif isinstance(default, Mapping):
        fits, needed = isinstance(value, Mapping), "a mapping of options"
    elif default is None:
        fits, needed = value is None or number or numbers, "a number, a list of numbers or null"
    else:
        fits, needed = number, "a number"
    if fits:
        return None
    too_large = isinstance(value, (int, float)) and LARGEST < abs(value) < float("inf")
    return f"{needed} of at most {LARGEST:,.0f} in size" if too_large else needed


LARGEST = 1e5
"""What no option needs to exceed; beyond, losses overflow, or take all memory and time there is."""


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -LARGEST <= value <= LARGEST
