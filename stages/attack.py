"""Make the adversarial test sets of one trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mdprop.parallel.launch import in_processes
from mdprop.runtime.entrance import run_stage

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
@in_processes
def attack(
    method: Annotated[str, typer.Option(help="The method that the model was trained with.")],
    seed: Annotated[int, typer.Option(min=0, help="The seed that it was trained with.")],
    params: Annotated[Path, typer.Option(help="The parameters.")] = Path("params.yaml"),
) -> None:
    from mdprop.config import load_params
    from mdprop.runs import Run, runs_of
    from mdprop.runtime.progress import announce

    p, run = load_params(params), Run(method, seed)
    announce(f"attack {run.among(runs_of(p.methods.all, p.seeds))}")

    from mdprop.robustness.sets import attacks_on_itself, make_kept_sets
    from mdprop.runtime.memory import keep_memory

    keep_memory()
    adversary, prepared = p.adversary, Path("data/prepared") / p.dataset.name
    plan = attacks_on_itself(run, run.answering(adversary.branches), adversary.sets)
    make_kept_sets("attack", run, plan, prepared, p.active_dataset, adversary)


if __name__ == "__main__":
    run_stage(app)
