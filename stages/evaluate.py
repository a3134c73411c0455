"""Measure retrieval and the embedding space of one model on every input set."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from mdprop.errors import reports_errors

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def evaluate(
    method: Annotated[str, typer.Option(help="The method that the model was trained with.")],
    seed: Annotated[int, typer.Option(min=0, help="The seed that it was trained with.")],
    params: Annotated[Path, typer.Option(help="The parameters.")] = Path("params.yaml"),
) -> None:
    from mdprop.config import load_params

    p = load_params(params)

    from mdprop.files import write_files
    from mdprop.robustness.evaluation import evaluate_sets

    run = Path("runs") / method / str(seed)
    settings = p.evaluate.model_dump()
    metrics = evaluate_sets(run / "embeddings", list(p.adversary.sets), **settings)
    write_files({run / "metrics.json": json.dumps(metrics, indent=2) + "\n"})


if __name__ == "__main__":
    reports_errors(app)()
