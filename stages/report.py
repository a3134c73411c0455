"""Gather every run's metrics into the paper's table, plots and a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mdprop.runtime.entrance import run_stage

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def report(params: Annotated[Path, typer.Option(help="The parameters.")] = Path("params.yaml")) -> None:
    from mdprop.config import load_params
    from mdprop.runs import Run

    p = load_params(params)

    from mdprop.data.audit import notes
    from mdprop.files import read_sealed_json
    from mdprop.report import write_report
    from mdprop.report.ablation import target_ablations
    from mdprop.report.provenance import read_provenance

    remedy = "run `dvc repro`"
    data = p.active_dataset
    runs = [Run(method, seed) for method in p.methods.all for seed in p.seeds]
    manifest = read_sealed_json(Path("data/prepared") / p.dataset.name / "manifest.json", remedy)
    settings = p.model_dump(exclude={"datasets", "methods", "recipes"}, exclude_unset=True)
    settings["dataset"] |= {**data.model_dump(exclude_unset=True), "images": manifest["splits"]}
    settings["recipes"] = {
        name: {
            part.name: part.model_dump(mode="json", exclude={"name"}, exclude_none=True) for part in slices
        }
        for name, slices in p.recipes.items()
        if slices and name in p.methods.all
    }
    del settings["adversary"]["sets"]  # the page has a table of them
    table = write_report(
        "report",
        runs,
        p.adversary.sets,
        channel_std=data.std,
        settings=settings,
        provenance=read_provenance(runs),
        notes=notes(manifest),
        ablations=target_ablations([p.method(name) for name in p.methods.all], p.attack.targets),
        evaluated=manifest["settings"]["evaluate"],
    )
    print(table)


if __name__ == "__main__":
    run_stage(app)
