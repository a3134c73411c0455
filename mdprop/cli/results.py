"""Results: the table, and its check against a baseline."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mdprop.cli.app import PARAMS, app, width

METRICS = Path("report/metrics.json")
MetricsOption = Annotated[Path, typer.Option("--metrics", help="The metrics of a report.")]


@app.command()
def table(metrics: MetricsOption = METRICS) -> None:
    """Print the table of methods and input distributions."""
    from mdprop.config import load_params
    from mdprop.report.aggregate import read_summary
    from mdprop.report.confidence import load_intervals
    from mdprop.report.terminal import terminal_table

    summary = read_summary(metrics)
    params = load_params(PARAMS) if PARAMS.exists() else None
    threats = params.adversary.sets if params else {}
    intervals = load_intervals(metrics.with_name("intervals.json"), summary)
    evaluated = params.dataset.evaluate if params else "test"
    print(terminal_table(summary, threats, width(), intervals, evaluated))


@app.command()
def check(
    baseline: Annotated[Path, typer.Option(help="The committed baseline, such as baselines/default.json.")],
    metrics: MetricsOption = METRICS,
    update: Annotated[bool, typer.Option("--update", help="Write the baseline instead of checking.")] = False,
) -> None:
    """Compare metrics with a baseline; exit code 1 where one fell beyond its tolerance."""
    from mdprop import regression

    values = regression.read_metrics(metrics)
    if update:
        known = regression.read_baseline(baseline, patterns_only=True) if baseline.exists() else None
        regression.write_baseline(baseline, regression.update(values, known))
        print(f"wrote {baseline}")
        return
    expected = regression.read_baseline(baseline)
    drops = regression.check(values, expected)
    for note in regression.notes(values, expected):
        print(f"note: {note}")
    for failure in regression.failures(values, drops):
        print(f"FAILED {failure}", file=sys.stderr)
    if drops:
        raise typer.Exit(1)
    print(f"{metrics}: no metric fell below {baseline}")
