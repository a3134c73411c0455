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
    from mdprop.data.stores.images import ImageStore
    from mdprop.parallel.parts import Parts
    from mdprop.parallel.resume import kept
    from mdprop.robustness.sets import attacked_model, attacks_on_itself, make_sets
    from mdprop.runtime.memory import keep_memory
    from mdprop.runtime.state import computed_from

    keep_memory()
    adversary, data = p.adversary, p.active_dataset
    plan = attacks_on_itself(run, run.answering(adversary.branches), adversary.sets)
    store = ImageStore(Path("data/prepared") / p.dataset.name / "test.arrow")
    transform = test_transform(data.resize, data.image_size)
    key = {
        "parameters": {
            "adversary": adversary.model_dump(mode="json"),
            "images": data.model_dump(mode="json"),
        },
        **computed_from(run.folder / "model.json", store.file),
    }
    with kept(f"attack-{method}-{seed}", key) as state:
        load = partial(attacked_model, run)
        make_sets(run, plan, load, store, transform, adversary, Parts(state))


if __name__ == "__main__":
    run_stage(app)
