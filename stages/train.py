"""Train one method with one seed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mdprop.parallel.launch import in_processes
from mdprop.runtime.entrance import run_stage

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
@in_processes
def train(
    method: Annotated[str, typer.Option(help="A known method, or one of recipes in params.yaml.")],
    seed: Annotated[int, typer.Option(min=0, help="Of weights, batches, augmentation and attacks.")],
    params: Annotated[Path, typer.Option(help="The parameters.")] = Path("params.yaml"),
) -> None:
    from mdprop.config import load_params
    from mdprop.runs import Run, runs_of
    from mdprop.runtime.progress import announce

    p, run = load_params(params), Run(method, seed)
    announce(f"train {run.among(runs_of(p.methods.all, p.seeds))}")
    chosen = p.method(method)

    from mdprop.models import save_model
    from mdprop.parallel.resume import kept
    from mdprop.runtime.hardware import is_main
    from mdprop.runtime.memory import keep_memory
    from mdprop.runtime.provenance import provenance
    from mdprop.training import curve_digests, identity, train_run

    keep_memory()
    data, parameters = Path("data/prepared") / p.dataset.name, p.read_by_training(chosen)
    key = identity(chosen, seed, data, model=p.model, parameters=parameters)
    with kept(f"train-{method}-{seed}", key) as state:
        model = train_run(
            chosen,
            seed,
            data,
            run.live,
            images=p.active_dataset,
            model=p.model,
            loss=p.loss,
            settings=p.train,
            attack=p.attack if chosen.adversarial else None,
            state=state,
        )
        if is_main():
            save_model(
                model,
                run.folder,
                backbone=p.model.backbone,
                embedding_dim=p.model.embedding_dim,
                details={
                    "method": method,
                    "seed": seed,
                    "parameters": parameters,
                    "curves": curve_digests(run.live),
                    "provenance": provenance(),
                },
            )
            state.name_result(run.folder / "model.json")


if __name__ == "__main__":
    run_stage(app)
