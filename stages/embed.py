"""Embed the test images and the adversarial sets of one trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mdprop.parallel.launch import in_processes
from mdprop.runtime.entrance import run_stage

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
@in_processes
def embed(
    method: Annotated[str, typer.Option(help="The method that the model was trained with.")],
    seed: Annotated[int, typer.Option(min=0, help="The seed that it was trained with.")],
    params: Annotated[Path, typer.Option(help="The parameters.")] = Path("params.yaml"),
) -> None:
    from mdprop.config import load_params
    from mdprop.runs import Run, runs_of
    from mdprop.runtime.progress import announce

    p, run = load_params(params), Run(method, seed)
    announce(f"embed {run.among(runs_of(p.methods.all, p.seeds))}")

    from mdprop.branches import CLEAN
    from mdprop.data.loading.transforms import test_transform
    from mdprop.models import load_model
    from mdprop.parallel.parts import Parts
    from mdprop.parallel.resume import kept
    from mdprop.robustness.embedding import (
        corrupted_batches,
        embed_sets,
        input_batches,
        set_sizes,
    )
    from mdprop.robustness.stores import clean_stores
    from mdprop.runtime.hardware import device
    from mdprop.runtime.memory import keep_memory
    from mdprop.runtime.state import computed_from

    keep_memory()
    stores = clean_stores(Path("data/prepared") / p.dataset.name)
    transform = test_transform(p.active_dataset.resize, p.active_dataset.image_size)
    threats = run.met(p.adversary.sets)
    branches = run.answering(p.adversary.branches)
    attacked = [run.attacked(b, n, t) for b in branches for n, t in threats.items()]
    key = {
        "parameters": {
            name: getattr(p, name).model_dump(mode="json") for name in ("adversary", "corruptions")
        }
        | {"images": p.active_dataset.model_dump(mode="json")},
        **computed_from(run.folder / "model.json", *(store.file for store in stores.values()), *attacked),
    }
    with kept(f"embed-{method}-{seed}", key) as state:
        for branch in branches:
            model = load_model(run.folder, device(), branch)

            def sets(own: slice | None = None, branch: str = branch) -> Any:
                found = input_batches(run, branch, stores, transform, threats, own)
                corrupted = p.corruptions.sets, p.adversary.seed, own
                return found | corrupted_batches(run, branch, stores[CLEAN], transform, threats, *corrupted)

            files = {name: run.embeddings(branch, name) for name in sets()}
            sizes = set_sizes(run, branch, stores, threats, p.corruptions.sets)
            shown = f"embed {run}" if branch == CLEAN else f"embed {run} through {branch}"
            embed_sets(model, sets, files, sizes, device(), Parts(state), shown)


if __name__ == "__main__":
    run_stage(app)
