"""Measure retrieval and the embedding space of one model on every input set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mdprop.runtime.entrance import run_stage

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def evaluate(
    method: Annotated[str, typer.Option(help="The method that the model was trained with.")],
    seed: Annotated[int, typer.Option(min=0, help="The seed that it was trained with.")],
    params: Annotated[Path, typer.Option(help="The parameters.")] = Path("params.yaml"),
) -> None:
    from mdprop.config import load_params
    from mdprop.runs import Run

    p, run = load_params(params), Run(method, seed)

    from mdprop.data.stores.queries import write_queries
    from mdprop.files import write_files
    from mdprop.robustness.evaluation import evaluate_run

    branches = run.answering(p.adversary.branches)
    metrics, queries = evaluate_run(run, branches, p.adversary.sets, p.evaluate)
    write_queries(run.queries, queries)
    write_files({run.metrics: json.dumps(metrics, indent=2) + "\n"})


if __name__ == "__main__":
    run_stage(app)
