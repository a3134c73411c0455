"""Which experiments are compared."""

from __future__ import annotations

from collections.abc import Sequence

from mdprop.errors import MDPropError, ParameterError, ResultError
from mdprop.experiments import repository
from mdprop.experiments.comparison import by_parameters
from mdprop.experiments.repository import Experiment

HEAD = "HEAD"


def named_experiments(revisions: Sequence[str]) -> list[Experiment]:
    """These revisions. Raises `ParameterError`, or `ResultError`, for the first that cannot be compared."""
    if len(revisions) < 2 or len(set(revisions)) < len(revisions):
        raise ParameterError(
            f"compare: two revisions or more are needed, each once, not {', '.join(revisions)}"
        )
    found = []
    for result in repository.read_experiments(revisions):
        if isinstance(result, MDPropError):
            raise result
        found.append(result)
    return found


def all_experiments() -> tuple[list[Experiment], list[str]]:
    """HEAD and the experiments that started from it, by what differs, and a note on each that is left out.

    Raises `ResultError` where there are not two with results.
    """
    names, notes = repository.experiments_of_head()
    found = []
    for result in repository.read_experiments([HEAD, *names]):
        if isinstance(result, MDPropError):
            notes.append(f"{result}: left out")
        else:
            found.append(result)
    if len(found) < 2:
        reasons = "".join(f"; {note}" for note in notes)
        raise ResultError(
            f"of HEAD and its experiments only {len(found)} has results, too few to compare{reasons}"
        )
    first = [e for e in found if e.name == HEAD]
    return first + by_parameters([e for e in found if e.name != HEAD]), notes
