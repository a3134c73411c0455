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
from mdprop.report.headline import headline_json
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
    ablations: Sequence[Mapping[int, str]] = (),
    evaluated: str = "test",
) -> str:
    """Write the report to `out_dir` and return its table for the terminal.

    Written, all or nothing: metrics.json, summary.json, intervals.json, table.csv, recall.csv,
    robustness.csv, training.csv, classes.csv, corruptions.csv, index.html. The same inputs give the same
    bytes.

    runs: in the order of the table, the seeds of a method side by side; those without curves are none
        the worse.
    threats: the attack of each adversarial input set by name.
    channel_std: what the network divides each channel by, in pixels of [0, 1]; relates the units of radii.
    settings: {section: {key: value}}, shown as it is; nested mappings are allowed.
    provenance: {key: value}, shown as it is; no timestamps, or the bytes differ.
    notes: sentences about the images, such as which were left out.
    ablations: {T: method}, methods that differ in the number of targets of their training only.
    evaluated: "test", or "validation", whose numbers are said to be those of validation classes.

    Raises `ResultError` where a metrics.json, queries.parquet, checks.json or examples.json is missing, one
    of them or a curve cannot be read, or a file cannot be written.
    """
    from mdprop.report.classes import classes_csv, count_classes
    from mdprop.report.corruptions import corruptions_csv
    from mdprop.report.examples import read_all
    from mdprop.report.intervals import intervals_of, read_hits  # pyarrow, and matplotlib and jinja2 below:
    from mdprop.report.page import render_page  # not for `mdprop table`
    from mdprop.report.verdict import main_rows

    out = Path(out_dir)
    summary, curves = aggregate(collect(runs)), read_curves(runs)
    results, examples = read_hits(runs), read_all(runs)
    intervals, classes = intervals_of(results), count_classes(results, main_rows(summary))
    names = {label: name for found in examples.values() for label, name in found.classes.items()}
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
        examples=examples,
        classes=classes,
        ablations=ablations,
        evaluated=evaluated,
    )
    write_files(
        {
            out / "metrics.json": to_json(summary),
            out / "summary.json": headline_json(summary),
            out / "intervals.json": intervals_json(intervals),
            out / "table.csv": table_csv(summary, threats, intervals),
            out / "recall.csv": recall_csv(summary),
            out / "robustness.csv": robustness_csv(summary, threats),
            out / "training.csv": training_csv(curves),
            out / "corruptions.csv": corruptions_csv(summary, threats),
            out / "classes.csv": classes_csv(classes, names),
            out / "index.html": page,
        }
    )
    return terminal_table(summary, threats, intervals=intervals, evaluated=evaluated)
