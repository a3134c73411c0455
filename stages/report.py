"""Gather every run's metrics into the paper's table, plots and a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mdprop.errors import reports_errors

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def report(params: Annotated[Path, typer.Option(help="The parameters.")] = Path("params.yaml")) -> None:
    from mdprop.config import load_params

    p = load_params(params)

    from mdprop.files import read_json
    from mdprop.report import write_report

    remedy = "run dvc repro"
    data = p.active_dataset
    manifest = read_json(Path("data/prepared") / p.dataset.name / "manifest.json", remedy)
    model = read_json(Path("runs") / p.methods.all[0] / str(p.seeds[0]) / "model.json", remedy)
    settings = p.model_dump(exclude={"datasets", "seeds", "methods"}, exclude_unset=True)
    settings["dataset"] |= {**data.model_dump(exclude_unset=True), "images": manifest["splits"]}
    table = write_report(
        "report",
        "runs",
        methods=p.methods.all,
        seeds=p.seeds,
        epsilons=p.adversary.sets,
        units=p.adversary.units,
        channel_std=data.std,
        settings=settings,
        provenance=model["provenance"],
        live_dir="live",
    )
    print(table)


if __name__ == "__main__":
    reports_errors(app)()
