"""Read the chosen data set and write its splits as Arrow files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mdprop.runtime.entrance import run_stage

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def prepare(params: Annotated[Path, typer.Option(help="The parameters.")] = Path("params.yaml")) -> None:
    from mdprop.config import load_params
    from mdprop.data.audit import notes
    from mdprop.data.prepare import prepare as prepare_data

    settings = load_params(params)
    choice = settings.dataset
    manifest = prepare_data(
        choice.name,
        settings.active_dataset,
        Path("data/prepared") / choice.name,
        validation_classes=choice.validation_classes,
        evaluate=choice.evaluate,
        train_fraction=choice.train_fraction,
        fraction_of=choice.fraction_of,
        on_error=choice.on_error,
        duplicates=choice.duplicates,
    )
    for split, numbers in manifest["splits"].items():
        print(f"{split}: {numbers['images']} images of {numbers['classes']} classes")
    for note in notes(manifest):
        print(f"note: {note}; all are listed in manifest.json")


if __name__ == "__main__":
    run_stage(app)
