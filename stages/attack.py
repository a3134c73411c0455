"""Make the adversarial test sets of one trained model."""

from __future__ import annotations

from functools import partial
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
    from mdprop.runs import Run

    p, run = load_params(params), Run(method, seed)

    from mdprop.data.loading.transforms import test_transform
    from mdprop.data.stores.adversarial import write_adversarial
    from mdprop.data.stores.images import ImageStore
    from mdprop.models import load_model
    from mdprop.parallel.exchange import write_in_order
    from mdprop.robustness.generation import Adversary
    from mdprop.runtime.hardware import device
    from mdprop.runtime.memory import keep_memory
    from mdprop.runtime.progress import track

    keep_memory()
    store = ImageStore(Path("data/prepared") / p.dataset.name / "test.arrow")
    transform = test_transform(p.active_dataset.resize, p.active_dataset.image_size)
    threats, queries = p.adversary.sets, p.adversary.queries
    for branch in run.answering(p.adversary.branches):
        model = load_model(run.folder, device(), branch)
        adversary = Adversary(model, store, transform, threats, queries, p.adversary.seed)
        for name in track(threats, f"attacking {method} {seed} through {branch}, sets"):
            settings = {**threats[name].model_dump(), "branch": branch, "seed": p.adversary.seed}
            write = partial(write_adversarial, run.adversarial(branch, name), settings=settings)
            write_in_order(write, adversary.attack(name))


if __name__ == "__main__":
    run_stage(app)
