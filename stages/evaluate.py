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
    from mdprop.runs import CHECKS, Run

    p, run = load_params(params), Run(method, seed)

    from mdprop.data.stores.adversarial import image_components
    from mdprop.data.stores.queries import write_queries
    from mdprop.files import write_files
    from mdprop.robustness.checks import check_run, counts, to_json
    from mdprop.robustness.evaluation import evaluate_run, set_name

    branches = run.answering(p.adversary.branches)
    metrics, queries = evaluate_run(run, branches, p.adversary.sets, p.evaluate)
    size = image_components(run.adversarial(branches[0], next(iter(p.adversary.sets))))
    findings = {branch: check_run(run, branch, queries, p.adversary.sets, size) for branch in branches}
    for branch, found in findings.items():
        metrics[set_name(CHECKS, branch)] = counts(found)
        for finding in found:
            print(f"warning: {method} {seed} {branch}: {finding.text}")
    write_queries(run.queries, queries)
    write_files({run.metrics: json.dumps(metrics, indent=2) + "\n", run.checks: to_json(findings)})


if __name__ == "__main__":
    run_stage(app)
