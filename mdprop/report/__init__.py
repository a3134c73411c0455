"""Tables, plots and the page, from the metrics of each run.

`write_report` writes all of it; the modules below are for parts of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mdprop.files import write_files
from mdprop.report.aggregate import aggregate, collect, to_json
from mdprop.report.csvs import recall_csv, robustness_csv, table_csv
from mdprop.report.tables import terminal_table

__all__ = ["write_report"]


def write_report(
    out_dir: str | Path,
    runs_dir: str | Path,
    *,
    methods: Sequence[str],
    seeds: Sequence[int],
    epsilons: Mapping[str, float],
    units: str,
    channel_std: Sequence[float],
    settings: Mapping[str, Any],
    provenance: Mapping[str, Any],
    live_dir: str | Path | None = None,
) -> str:
    """Write the report to `out_dir` and return its table for the terminal.

    Written, all or nothing: metrics.json, table.csv, recall.csv, robustness_single_target.csv,
    robustness_multi_target.csv, index.html. The same inputs give the same bytes.

    runs_dir: holds <method>/<seed>/metrics.json; those of other methods and seeds are ignored.
    epsilons: the radius of each adversarial input set, in `units`, `pixel` or `normalized`.
    channel_std: what the network divides each channel by, in pixels of [0, 1]; relates the two units.
    settings: {section: {key: value}}, shown as it is; nested mappings are allowed.
    provenance: {key: value}, shown as it is; no timestamps, or the bytes differ.
    live_dir: holds <method>/<seed>, dvclive's folders, for the training curves.

    Raises `ResultError` where a metrics.json is missing, it or a curve cannot be read, or a file cannot be
    written.
    """
    from mdprop.report.page import render_page  # matplotlib and jinja2: not for `mdprop table`

    out = Path(out_dir)
    summary = aggregate(collect(Path(runs_dir), methods, seeds))
    page = render_page(
        summary,
        seeds=seeds,
        epsilons=epsilons,
        units=units,
        channel_std=channel_std,
        settings=settings,
        provenance=provenance,
        live_dir=Path(live_dir) if live_dir else None,
    )
    write_files(
        {
            out / "metrics.json": to_json(summary),
            out / "table.csv": table_csv(summary, epsilons),
            out / "recall.csv": recall_csv(summary),
            out / "robustness_single_target.csv": robustness_csv(summary, epsilons, "single_target"),
            out / "robustness_multi_target.csv": robustness_csv(summary, epsilons, "multi_target"),
            out / "index.html": page,
        }
    )
    return terminal_table(summary, epsilons, units)
