"""Hold the parameters against the prepared data, and try the network, before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mdprop.runtime.entrance import run_stage

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def preflight(params: Annotated[Path, typer.Option(help="The parameters.")] = Path("params.yaml")) -> None:
    from mdprop.config import load_params

    p = load_params(params)

    from mdprop.files import write_files
    from mdprop.preflight import preflight as look

    for note in look(p, Path("data/prepared") / p.dataset.name):
        print(f"note: {note}")
    # Always the same bytes: trainings wait for them, and none runs again for what was looked at.
    write_files({Path("data/preflight/passed"): "passed\n"})


if __name__ == "__main__":
    run_stage(app)
