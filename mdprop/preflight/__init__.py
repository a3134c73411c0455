"""What would stop a run hours later, looked for before training begins."""

from __future__ import annotations

from pathlib import Path

from mdprop.config.schema import Params
from mdprop.data.stores.images import ImageStore
from mdprop.errors import ParameterError, ParameterErrors
from mdprop.preflight.data import check_adversary, check_batches
from mdprop.preflight.network import check_network

__all__ = ["preflight"]


def preflight(params: Params, prepared: Path) -> list[str]:
    """Hold parameters against the prepared data, and try network and loss on a small batch.

    prepared: the folder that the stage `prepare` wrote.

    Returns what should be known, a line each. Raises `ParameterError`, a line for each problem.
    """
    train, test = ImageStore(prepared / "train.arrow"), ImageStore(prepared / "test.arrow")
    found = [
        *check_batches(train.labels, params.train),
        *check_adversary(test.labels, params.adversary),
        *check_network(
            [params.method(name) for name in params.methods.all],
            len(train.class_names),
            params.active_dataset,
            params.model,
            params.loss,
            params.train,
        ),
    ]
    problems = [finding.text for finding in found if finding.stops]
    if len(problems) > 1:
        raise ParameterErrors("params.yaml", problems)
    if problems:
        raise ParameterError(f"params.yaml: {problems[0]}")
    return [finding.text for finding in found]
