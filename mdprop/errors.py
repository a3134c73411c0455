"""What the user did wrong, in one line: what, where, what is allowed, what to do."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

EXIT_CODE = 2


class MDPropError(Exception):
    """A mistake that the user can mend; its text is one line."""


class ParameterError(MDPropError):
    """A value in params.yaml, an option or an environment variable."""


class DataError(MDPropError):
    """A data set on disk: a missing folder, a corrupt image, a class too small."""


class ModelError(MDPropError):
    """A backbone, its weights or a saved model."""


class ResultError(MDPropError):
    """Metrics that are missing, or that dropped below their baseline."""


def one_line(text: object) -> str:
    """Fold a message of several lines into one."""
    return " ".join(str(text).split())


def reports_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn an `MDPropError` into one line on standard error and exit code 2."""

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except MDPropError as error:
            print(f"error: {one_line(error)}", file=sys.stderr)
            raise SystemExit(EXIT_CODE) from None
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise SystemExit(130) from None

    return wrapper
