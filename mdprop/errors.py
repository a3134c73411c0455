"""What the user did wrong, in one line: what, where, what is allowed, what to do."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

EXIT_CODE = 2
LONGEST_LIST = 1900
"""Characters of a list of problems."""


class MDPropError(Exception):
    """A mistake that the user can mend; its text is one line, of `ParameterErrors` one for each."""


class ParameterError(MDPropError):
    """A value in params.yaml, an option or an environment variable."""


class ParameterErrors(ParameterError):
    """Several values in one file: a line that says how many, and a line for each."""

    def __init__(self, file: str, problems: Sequence[str]) -> None:
        lines = [f"{file} has {len(problems)} problems:"]
        for number, problem in enumerate(map(one_line, problems)):
            if sum(map(len, lines)) + len(problem) > LONGEST_LIST:
                lines.append(f"... and {len(problems) - number} more")
                break
            lines.append(problem)
        super().__init__("\n".join(lines))


class DataError(MDPropError):
    """A data set on disk: a missing folder, a corrupt image, a class too small."""


class ModelError(MDPropError):
    """A backbone, its weights or a saved model."""


class ResultError(MDPropError):
    """Metrics that are missing, or that dropped below their baseline."""


class DiskError(MDPropError):
    """A file that cannot be written: its disk is full, read-only or broken, or it is not ours."""


_IN_THE_WAY = "move away what is in its place"
_DISK_TROUBLE = {
    errno.ENOSPC: "free space there",
    errno.EDQUOT: "free space there, or have the quota raised",
    errno.EFBIG: "have the limit on the size of files raised (ulimit -f)",
    errno.EROFS: "have it mounted for writing, or work elsewhere",
    errno.EACCES: "mend its permissions, or work elsewhere",
    errno.EPERM: "mend its permissions, or work elsewhere",
    errno.EIO: "see what is wrong with the disk",
    errno.ESTALE: "see what is wrong with the network's disk",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EISDIR: _IN_THE_WAY,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EEXIST: _IN_THE_WAY,
}


def disk_error(error: OSError, path: object = None) -> DiskError | None:
    """In one line, what kept `path`, or else the file that the error names, from being written.

    None where that is no trouble of a disk.
    """
    remedy = _DISK_TROUBLE.get(error.errno or 0)
    if remedy is None:
        return None
    named = path or error.filename or "a file"
    return DiskError(f"{named} cannot be written ({os.strerror(error.errno or 0)}): {remedy}, then run again")


PIPELINE_PACKAGES = ("dvc", "dvclive", "fontTools", "jinja2", "matplotlib")
"""What the extra `pipeline` brings, by the names of import: the library does without."""


def missing_package(error: BaseException) -> MDPropError | None:
    """In one line, which package of the pipeline is not installed; None for any other error."""
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if name not in PIPELINE_PACKAGES:
        return None
    return MDPropError(
        f"this needs {name}, which is installed with the pipeline: "
        'pip install "mdprop[pipeline]", or pip install -e ".[pipeline]" in a checkout'
    )


def mistake_in(error: BaseException) -> MDPropError | None:
    """What the user can mend: the error itself, a missing package, or the trouble of a disk behind it."""
    if isinstance(error, MDPropError):
        return error
    if missing := missing_package(error):
        return missing
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and (trouble := disk_error(cause)):
            return trouble
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return None


def one_line(text: object) -> str:
    """Fold a message of several lines into one."""
    return " ".join(str(text).split())


def say(mistake: MDPropError) -> None:
    """Print it on standard error, where that can be written to."""
    lines = str(mistake).splitlines() if isinstance(mistake, ParameterErrors) else [one_line(mistake)]
    with contextlib.suppress(OSError):
        print("\n".join(f"error: {line}" for line in lines), file=sys.stderr, flush=True)


def reports_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn what `mistake_in` finds into one line on standard error and exit code 2."""

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except Exception as error:
            mistake = mistake_in(error)
            if mistake is None:
                raise
            say(mistake)
            raise SystemExit(EXIT_CODE) from None
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            raise SystemExit(130) from None

    return wrapper
