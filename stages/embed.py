"""Embed the test images and the adversarial sets of one trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    from mdprop.runs import Run

    p, run = load_params(params), Run(method, seed)

    from mdprop.branches import CLEAN
    from mdprop.data.loading.datasets import store_batches
    from mdprop.data.loading.transforms import test_transform
    from mdprop.data.stores.adversarial import read_adversarial
    from mdprop.data.stores.images import ImageStore
    from mdprop.models import load_model
    from mdprop.parallel.exchange import turns
    from mdprop.robustness.embedding import extract_embeddings
    from mdprop.runs import GALLERY
    from mdprop.runtime.hardware import device
    from mdprop.runtime.memory import keep_memory
    from mdprop.runtime.progress import track

    keep_memory()
    data = Path("data/prepared") / p.dataset.name
    transform = test_transform(p.active_dataset.resize, p.active_dataset.image_size)
    stores = {CLEAN: data / "test.arrow", GALLERY: data / "gallery.arrow"}
    if not stores[GALLERY].exists():
        del stores[GALLERY]
    for branch in run.answering(p.adversary.branches):
        model = load_model(run.folder, device(), branch)
        sets = {name: store_batches(ImageStore(file), transform, turns()) for name, file in stores.items()}
        sets |= {n: read_adversarial(run.adversarial(branch, n), turns()) for n in p.adversary.sets}
        for name, batches in track(sets.items(), f"embedding {method} {seed} through {branch}, sets"):
            extract_embeddings(model, batches, run.embeddings(branch, name), device())


if __name__ == "__main__":
    run_stage(app)
