"""Read the chosen data set and write its splits as Arrow files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mdprop.errors import reports_errors

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def prepare(params: Annotated[Path, typer.Option(help="The parameters.")] = Path("params.yaml")) -> None:
    from mdprop.config import load_params
    from mdprop.data.prepare import prepare as prepare_data

    settings = load_params(params)
    choice = settings.dataset.model_dump(exclude={"name"})
    name = settings.dataset.name
    manifest = prepare_data(name, settings.active_dataset, Path("data/prepared") / name, **choice)
    for split, numbers in manifest["splits"].items():
        print(f"{split}: {numbers['images']} images of {numbers['classes']} classes")


if __name__ == "__main__":
    reports_errors(app)()
