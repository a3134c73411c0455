"""Embed the test images and the adversarial sets of one trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mdprop.errors import reports_errors

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def embed(
    method: Annotated[str, typer.Option(help="The method that the model was trained with.")],
    seed: Annotated[int, typer.Option(min=0, help="The seed that it was trained with.")],
    params: Annotated[Path, typer.Option(help="The parameters.")] = Path("params.yaml"),
) -> None:
    from mdprop.config import load_params

    p = load_params(params)

    from mdprop.data.adversarial import read_adversarial
    from mdprop.data.store import ImageStore
    from mdprop.data.transforms import test_transform
    from mdprop.distributions import CLEAN
    from mdprop.embedding import extract_embeddings, store_batches
    from mdprop.models import load_model
    from mdprop.runtime import device, track

    run = Path("runs") / method / str(seed)
    model = load_model(run, device())
    store = ImageStore(Path("data/prepared") / p.dataset.name / "test.arrow")
    clean = store_batches(store, test_transform(p.active_dataset.resize, p.active_dataset.image_size))
    sets = {name: read_adversarial(run / "adversarial" / f"{name}.arrow") for name in p.adversary.sets}
    for name, batches in track({CLEAN: clean, **sets}.items(), f"embedding {method} {seed}, sets"):
        extract_embeddings(model, batches, run / "embeddings" / f"{name}.parquet", device())


if __name__ == "__main__":
    reports_errors(app)()
