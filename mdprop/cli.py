"""The `mdprop` command: settings by name, results and their check, trained networks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mdprop.runtime.entrance import run_stage

app = typer.Typer(
    help="Deep metric learning with multiple batch norms: settings, results and models.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

METRICS = Path("report/metrics.json")
PARAMS = Path("params.yaml")
PRESETS = Path("presets.yaml")
MetricsOption = Annotated[Path, typer.Option("--metrics", help="The metrics of a report.")]


@app.command()
def table(metrics: MetricsOption = METRICS) -> None:
    """Print the table of methods and input distributions."""
    import shutil

    from mdprop.config import load_params
    from mdprop.report.aggregate import read_summary
    from mdprop.report.confidence import load_intervals
    from mdprop.report.terminal import terminal_table

    summary = read_summary(metrics)
    threats = load_params(PARAMS).adversary.sets if PARAMS.exists() else {}
    width = min(100, shutil.get_terminal_size((100, 24)).columns)
    intervals = load_intervals(metrics.with_name("intervals.json"), summary)
    print(terminal_table(summary, threats, width, intervals))


@app.command()
def check(
    baseline: Annotated[Path, typer.Option(help="The committed baseline, such as baselines/default.json.")],
    metrics: MetricsOption = METRICS,
    update: Annotated[bool, typer.Option("--update", help="Write the baseline instead of checking.")] = False,
) -> None:
    """Compare metrics with a baseline; exit code 1 where one fell beyond its tolerance."""
    from mdprop import regression
    from mdprop.files import read_json

    values = read_json(metrics, "run `dvc repro`")
    if update:
        known = regression.read_baseline(baseline, patterns_only=True) if baseline.exists() else None
        regression.write_baseline(baseline, regression.update(values, known))
        print(f"wrote {baseline}")
        return
    expected = regression.read_baseline(baseline)
    drops = regression.check(values, expected)
    for note in regression.notes(values, expected):
        print(f"note: {note}")
    for drop in drops:
        print(f"FAILED {drop}", file=sys.stderr)
    if drops:
        raise typer.Exit(1)
    print(f"{metrics}: no metric fell below {baseline}")


@app.command()
def preset(
    names: Annotated[
        list[str] | None, typer.Argument(help="Presets, a later one over an earlier one.")
    ] = None,
) -> None:
    """Write settings of presets.yaml into params.yaml; without a name, list them."""
    from mdprop.presets import apply_presets, read_presets

    known = read_presets(PRESETS)
    if not names:
        print("\n".join(known))
        return
    changed = apply_presets(PARAMS, known, names)
    print(f"{PARAMS}: {len(changed)} value(s) changed; `git restore {PARAMS}` takes them back")


@app.command()
def export(
    model_dir: Annotated[Path, typer.Argument(help="A trained model, such as runs/mdprop/0.")],
    out: Annotated[Path, typer.Argument(help="A .safetensors or .pth file.")],
    branch: Annotated[
        str,
        typer.Option(help="The batch-norm branch to keep, or a mixture of two: 'clean+25%multi_target'."),
    ] = "clean",
) -> None:
    """Write one branch, or a mixture of two, as a plain network's state dict."""
    from mdprop.models import export_network

    export_network(model_dir, out, branch)
    print(f"wrote {out}")


def main() -> None:
    """The console script: exit code 2 for the user's mistakes, 1 for a failed check."""
    run_stage(app)
