"""Measure retrieval and the embedding space of one model on every input set."""

from __future__ import annotations

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
    from mdprop.runs import Run, runs_of
    from mdprop.runtime.progress import announce

    p, run = load_params(params), Run(method, seed)
    announce(f"evaluate {run.among(runs_of(p.methods.all, p.seeds))}")

    from mdprop.data.loading.transforms import test_transform
    from mdprop.robustness.examples import write_run_examples
    from mdprop.robustness.results import write_results
    from mdprop.robustness.stores import clean_stores

    branches, threats = run.answering(p.adversary.branches), run.met(p.adversary.sets)
    for branch, findings in write_results(run, branches, threats, p.evaluate, p.corruptions.sets).items():
        for finding in findings:
            print(f"warning: {method} {seed} {branch}: {finding.text}")
    stores = clean_stores(Path("data/prepared") / p.dataset.name)
    transform = test_transform(p.active_dataset.resize, p.active_dataset.image_size)
    write_run_examples(run, branches[0], threats, stores, transform, p.evaluate.seed)


if __name__ == "__main__":
    run_stage(app)
