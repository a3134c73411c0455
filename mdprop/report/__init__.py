"""Tables, plots and the page, from the metrics of each run.

`write_report` writes all of it; the modules below are for parts of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mdprop.attacks.threat import Threat
from mdprop.files import write_files
from mdprop.report.aggregate import aggregate, collect, to_json
from mdprop.report.confidence import intervals_json
from mdprop.report.csvs import recall_csv, robustness_csv, table_csv, training_csv
from mdprop.report.curves import read_curves
from mdprop.report.findings import read_findings
from mdprop.report.terminal import terminal_table
from mdprop.runs import Run

__all__ = ["write_report"]


def write_report(
    out_dir: str | Path,
    runs: Sequence[Run],
    threats: Mapping[str, Threat],
    *,
    channel_std: Sequence[float],
    settings: Mapping[str, Any],
    provenance: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> str:
    """Write the report to `out_dir` and return its table for the terminal.

    Written, all or nothing: metrics.json, intervals.json, table.csv, recall.csv, robustness.csv,
    training.csv, index.html. The same inputs give the same bytes.

    runs: in the order of the table, the seeds of a method side by side; those without curves are none
        the worse.
    threats: the attack of each adversarial input set by name.
    channel_std: what the network divides each channel by, in pixels of [0, 1]; relates the units of radii.
    settings: {section: {key: value}}, shown as it is; nested mappings are allowed.
    provenance: {key: value}, shown as it is; no timestamps, or the bytes differ.
    notes: sentences about the images, such as which were left out.

    Raises `ResultError` where a metrics.json, queries.parquet or checks.json is missing, one of them or
    a curve cannot be read, or a file cannot be written.
    """
    from mdprop.report.intervals import read_intervals  # pyarrow, and matplotlib and jinja2 below:
    from mdprop.report.page import render_page  # not for `mdprop table`

    out = Path(out_dir)
    summary, curves = aggregate(collect(runs)), read_curves(runs)
    intervals = read_intervals(runs)
    page = render_page(
        summary,
        threats,
        curves,
        channel_std=channel_std,
        settings=settings,
        provenance=provenance,
        notes=notes,
        intervals=intervals,
        findings=read_findings(runs),
    )
    write_files(
        {
            out / "metrics.json": to_json(summary),
            out / "intervals.json": intervals_json(intervals),
            out / "table.csv": table_csv(summary, threats, intervals),
            out / "recall.csv": recall_csv(summary),
            out / "robustness.csv": robustness_csv(summary, threats),
            out / "training.csv": training_csv(curves),
            out / "index.html": page,
        }
    )
    return terminal_table(summary, threats, intervals=intervals)
