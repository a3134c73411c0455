"""Embed the test images and the adversarial sets of one trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mdprop.errors import reports_errors
from mdprop.parallel.launch import in_processes

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
@in_processes
def embed(
    method: Annotated[str, typer.Option(help="The method that the model was trained with.")],
    seed: Annotated[int, typer.Option(min=0, help="The seed that it was trained with.")],
    params: Annotated[Path, typer.Option(help="The parameters.")] = Path("params.yaml"),
) -> None:
    from mdprop.config import load_params

    p = load_params(params)

    from mdprop.data.loading.datasets import store_batches
    from mdprop.data.loading.transforms import test_transform
    from mdprop.data.stores.adversarial import read_adversarial
    from mdprop.data.stores.images import ImageStore
    from mdprop.methods import CLEAN, GALLERY
    from mdprop.models import load_model
    from mdprop.parallel.exchange import turns
    from mdprop.robustness.embedding import extract_embeddings
    from mdprop.runtime.hardware import device
    from mdprop.runtime.memory import keep_memory
    from mdprop.runtime.progress import track

    keep_memory()
    run = Path("runs") / method / str(seed)
    model = load_model(run, device())
    data = Path("data/prepared") / p.dataset.name
    transform = test_transform(p.active_dataset.resize, p.active_dataset.image_size)
    stores = {CLEAN: data / "test.arrow", GALLERY: data / "gallery.arrow"}
    if not stores[GALLERY].exists():
        del stores[GALLERY]
    sets = {name: store_batches(ImageStore(file), transform, turns()) for name, file in stores.items()}
    folder = run / "adversarial"
    sets |= {name: read_adversarial(folder / f"{name}.arrow", turns()) for name in p.adversary.sets}
    for name, batches in track(sets.items(), f"embedding {method} {seed}, sets"):
        extract_embeddings(model, batches, run / "embeddings" / f"{name}.parquet", device())


if __name__ == "__main__":
    reports_errors(app)()
