"""A comparison as one HTML file, without network or script."""

from __future__ import annotations

import base64

import jinja2

from mdprop.corruptions import parse_set
from mdprop.experiments.comparison import Compared, Line
from mdprop.experiments.plots import comparison_plots
from mdprop.experiments.tables import comparison_csv, legend, value_text
from mdprop.report.comparisons import MISSING, points, span


def comparison_page(compared: Compared) -> str:
    """The page as text: the plots, a table of all input sets, what is said about them, and the CSV."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mdprop.experiments"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sets = [name for name in compared.sets if not parse_set(name)]
    return environment.get_template("compare.html.j2").render(
        experiments=compared.experiments,
        keys=compared.differing,
        sets=sets,
        rows=[(line, [_cell(line, name) for name in sets]) for line in compared.lines],
        value=value_text,
        legend=legend(compared),
        plots=comparison_plots(compared),
        csv=base64.b64encode(comparison_csv(compared).encode()).decode(),
    )


def _cell(line: Line, input_set: str) -> dict[str, str | bool]:
    """The texts of a cell, in percent and points."""
    recall, found = line.recall.get(input_set), line.against.get(input_set)
    return {
        "value": f"{100 * recall.value:.1f}" if recall else MISSING,
        "interval": span(recall) if recall else "",
        "difference": points(found.difference.value) if found else "",
        "own": span(found.difference, signed=True) if found else "",
        "differs": found is not None and found.differs,
    }
