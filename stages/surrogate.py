"""Make adversarial test sets by attacks on one trained model, for the others to answer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mdprop.parallel.launch import in_processes
from mdprop.runtime.entrance import run_stage

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
@in_processes
def surrogate(
    source: Annotated[str, typer.Argument(help="The model by method and seed, such as standard/0.")],
    params: Annotated[Path, typer.Option(help="The parameters.")] = Path("params.yaml"),
) -> None:
    from mdprop.config import load_params
    from mdprop.runs import Run
    from mdprop.runtime.progress import announce

    p, run = load_params(params), Run.named(source)
    announce(f"surrogate {run.among([Run.named(name) for name in p.adversary.sources])}")

    from mdprop.robustness.sets import attacks_for_others, make_kept_sets
    from mdprop.runtime.memory import keep_memory

    keep_memory()
    adversary, prepared = p.adversary, Path("data/prepared") / p.dataset.name
    plan = attacks_for_others(run, adversary.sets)
    make_kept_sets("surrogate", run, plan, prepared, p.active_dataset, adversary)


if __name__ == "__main__":
    run_stage(app)
