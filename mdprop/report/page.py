"""report/index.html: one file, no network, no script."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import jinja2

from mdprop.methods import CLEAN
from mdprop.report.aggregate import Stat, Summary
from mdprop.report.figures import Plot, recall_plots, training_plots
from mdprop.report.tables import (
    GOAL_LABELS,
    HEADLINE,
    MISSING,
    STANDARD,
    InputSet,
    comparison,
    input_sets,
    percent,
    spread_note,
    value_of,
)

SECOND_PROTOCOL = f"{HEADLINE}_all_adversarial"

# group, metric, head, decimals (None: in percent, and the highest is the best)
_EMBEDDING_COLUMNS: tuple[tuple[str, str, str, int | None], ...] = (
    ("retrieval and clusters, %", "map_at_r", "mAP@R", None),
    ("retrieval and clusters, %", "map_at_1000", "mAP@1000", None),
    ("retrieval and clusters, %", "nmi", "NMI", None),
    ("retrieval and clusters, %", "f1", "F1", None),
    ("density", "density_intra", "intra-class", 3),
    ("density", "density_inter", "inter-class", 3),
    ("density", "density_ratio", "intra / inter", 3),
    ("spectrum", "spectral_decay", "decay", 3),
)


@dataclass(frozen=True)
class Cell:
    """A number as text, a second line below it, and whether it is the best of its column."""

    text: str
    note: str = ""
    best: bool = False


@dataclass(frozen=True)
class Table:
    """groups: heads that span several columns, with their spans; empty for a table with one row of heads."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[tuple[str, Sequence[Cell]]]
    groups: Sequence[tuple[str, int]] = field(default=())
    corner: str = "method"


def render_page(
    summary: Summary,
    *,
    seeds: Sequence[int],
    epsilons: Mapping[str, float],
    units: str,
    channel_std: Sequence[float],
    settings: Mapping[str, Any],
    provenance: Mapping[str, Any],
    live_dir: Path | None = None,
) -> str:
    """The page as text; `write_report` says what the arguments are."""
    sets = input_sets(summary, epsilons)
    attacked = [s for s in sets if s.goal]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mdprop.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    return environment.get_template("index.html.j2").render(
        methods=list(summary),
        attacks=len(attacked),
        spread=spread_note(summary),
        standard=STANDARD if STANDARD in summary and len(summary) > 1 else None,
        headline=recall_table(summary, sets, HEADLINE, "Recall@1 in %, attacked queries, clean gallery"),
        second=recall_table(
            summary, attacked, SECOND_PROTOCOL, "Recall@1 in %, attacked queries and gallery"
        ),
        embedding=embedding_table(summary),
        inputs=input_table(summary, sets, units, channel_std),
        plots=recall_plots(summary, epsilons, units),
        curves=training_plots(live_dir, summary, seeds) if live_dir else [],
        settings=settings_tables({"seeds": list(seeds), **settings}),
        provenance=settings_tables({"provenance": provenance}),
    )


def _data_uri(plot: Plot) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(plot.svg.encode()).decode()


def recall_table(summary: Summary, sets: Sequence[InputSet], metric: str, caption: str) -> Table | None:
    """Methods by input sets, the best of a column marked; None where no method has the metric."""
    columns = []
    for s in sets:
        texts = [percent(value_of(summary, method, s.name, metric)) for method in summary]
        notes = [comparison(summary, method, s, metric, times="×") for method in summary]
        best = _best(summary, s.name, metric)
        columns.append([Cell(*parts) for parts in zip(texts, notes, best, strict=True)])
    if all(cell.text == MISSING for column in columns for cell in column):
        return None
    rows = [(method, [column[i] for column in columns]) for i, method in enumerate(summary)]
    groups = [(name, len(list(members))) for name, members in groupby(s.group for s in sets)]
    return Table(caption, [s.label for s in sets], rows, groups)


def _best(summary: Summary, input_set: str, metric: str) -> list[bool]:
    """Which methods have the highest mean, equal to a tenth of a percent; none where there is no rival."""
    stats = [value_of(summary, method, input_set, metric) for method in summary]
    means = [round(100 * stat["mean"], 1) if stat and stat["mean"] is not None else None for stat in stats]
    known = [mean for mean in means if mean is not None]
    return [len(known) > 1 and mean == max(known) for mean in means]


def embedding_table(summary: Summary) -> Table | None:
    """Measures of the clean embedding space that a method has; the best marked where higher is better."""
    present = [c for c in _EMBEDDING_COLUMNS if any(value_of(summary, m, CLEAN, c[1]) for m in summary)]
    if not present:
        return None
    columns = []
    for _, metric, _, decimals in present:
        best = _best(summary, CLEAN, metric) if decimals is None else [False] * len(summary)
        stats = [value_of(summary, method, CLEAN, metric) for method in summary]
        texts = [percent(stat) if decimals is None else _plain(stat, decimals) for stat in stats]
        columns.append([Cell(text, best=b) for text, b in zip(texts, best, strict=True)])
    rows = [(method, [column[i] for column in columns]) for i, method in enumerate(summary)]
    groups = [(name, len(list(members))) for name, members in groupby(c[0] for c in present)]
    return Table("The embedding space of clean test images", [c[2] for c in present], rows, groups)


def _plain(stat: Stat | None, decimals: int) -> str:
    if stat is None:
        return MISSING
    text = f"{stat['mean']:.{decimals}f}"
    return text if stat["n"] < 2 else f"{text} ± {stat['std']:.{decimals}f}"


def input_table(
    summary: Summary, sets: Sequence[InputSet], units: str, channel_std: Sequence[float]
) -> Table:
    """Each input set: its goal, its radius in every unit, how many queries it has.

    channel_std: the standard deviations, in pixels of [0, 1], that the network divides the channels by;
    with one of each channel a radius in the other units is a range of channels.
    """
    rows = []
    for s in sets:
        pixel = normalized = [s.epsilon] if s.epsilon is not None else []
        if units == "pixel":
            normalized = [e / std for e in pixel for std in channel_std]
        else:
            pixel = [e * std for e in normalized for std in channel_std]
        counts = {f"{q['mean']:g}" for m in summary if (q := value_of(summary, m, s.name, "queries"))}
        texts = [
            GOAL_LABELS[s.goal] if s.goal else MISSING,
            _numbers(pixel),
            _numbers([255 * e for e in pixel]),
            _numbers(normalized),
            " / ".join(sorted(counts)) or MISSING,
        ]
        rows.append((s.name, [Cell(text) for text in texts]))
    heads = ["goal", "ε in pixels of [0, 1]", "ε in 8-bit levels", "ε in standard deviations", "queries"]
    return Table("The input sets", heads, rows, corner="input set")


def _numbers(values: Sequence[float]) -> str:
    """One number where the channels agree."""
    return " / ".join(dict.fromkeys(f"{value:.3g}" for value in values)) or MISSING


def settings_tables(settings: Mapping[str, Any]) -> list[Table]:
    """A table a section; the keys of nested mappings are joined by dots."""
    general = {key: value for key, value in settings.items() if not isinstance(value, Mapping)}
    sections = {key: value for key, value in settings.items() if isinstance(value, Mapping) and value}
    tables = []
    for name, section in {"general": general, **sections}.items():
        if section:
            rows = [(key, [Cell(_text(value))]) for key, value in _flat(section)]
            tables.append(Table(name, ["value"], rows, corner="key"))
    return tables


def _flat(section: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in section.items():
        rows += _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [(f"{prefix}{key}", value)]
    return rows


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(item) for item in value) or MISSING
    if isinstance(value, float):
        return f"{value:g}"
    return MISSING if value is None else str(value)
