"""report/index.html: one file, no network, no script."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from markupsafe import Markup, escape

from mdprop.attacks.threat import Threat
from mdprop.branches import CLEAN
from mdprop.report.aggregate import Summary, branch_of, method_of
from mdprop.report.comparisons import HEADLINE, MARK, STANDARD, interval_note, spread_note
from mdprop.report.confidence import UNKNOWN, Intervals
from mdprop.report.corruptions import corruption_table
from mdprop.report.curves import Curves
from mdprop.report.figures import Plot, recall_plots, training_plots
from mdprop.report.findings import Findings
from mdprop.report.page_tables import (
    against_table,
    distance_table,
    embedding_table,
    input_table,
    recall_table,
    score_table,
    settings_tables,
)
from mdprop.report.sets import input_sets
from mdprop.runs import WORST_CASE

SECOND_PROTOCOL = f"{HEADLINE}_all_adversarial"


def render_page(
    summary: Summary,
    threats: Mapping[str, Threat],
    curves: Curves,
    *,
    channel_std: Sequence[float],
    settings: Mapping[str, Any],
    provenance: Mapping[str, Any],
    notes: Sequence[str] = (),
    intervals: Intervals = UNKNOWN,
    findings: Findings = (),
) -> str:
    """The page as text; `write_report` says what the arguments are."""
    sets = input_sets(summary, threats)
    attacked = [s for s in sets if s.name != CLEAN]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("mdprop.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    environment.filters["breakable"] = _breakable
    return environment.get_template("index.html.j2").render(
        methods=list(dict.fromkeys(map(method_of, summary))),
        branches=list(dict.fromkeys(filter(None, map(branch_of, summary)))),
        attacks=sum(s.threat is not None for s in sets),
        spread=spread_note(summary),
        standard=STANDARD if STANDARD in summary and len(summary) > 1 else None,
        headline=recall_table(
            summary, sets, HEADLINE, "Recall@1 in %, attacked queries, clean gallery", intervals
        ),
        against=[against_table(sets, intervals, reference) for reference in intervals.against],
        interval=interval_note(summary) if intervals.recall else None,
        mark=MARK,
        worst=any(s.name == WORST_CASE for s in sets),
        second=recall_table(
            summary, attacked, SECOND_PROTOCOL, "Recall@1 in %, attacked queries and gallery"
        ),
        reach=[
            distance_table(summary, attacked, "moved", "Distance from an image's clean embedding, mean"),
            distance_table(summary, attacked, "approach", "Share of the way to the targets, mean"),
        ],
        findings=findings,
        score=score_table(summary),
        corruptions=corruption_table(summary, threats),
        embedding=embedding_table(summary),
        inputs=input_table(summary, sets, channel_std),
        notes=notes,
        plots=recall_plots(summary, sets),
        curves=training_plots(curves),
        settings=settings_tables(settings),
        provenance=settings_tables({"provenance": provenance}),
    )


def _data_uri(plot: Plot) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(plot.svg.encode()).decode()


def _breakable(name: str) -> Markup:
    """A name that may go on in a new line before @ and + and after _ and dots."""
    return Markup(re.sub(r"(?=[@+])|(?<=[_.])", "<wbr>", str(escape(name))))
