"""report/index.html: one file, no network; a script that sorts tables, without which nothing is missing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from mdprop.attacks.threat import Threat
from mdprop.branches import CLEAN
from mdprop.data.stores.examples import Examples
from mdprop.report.aggregate import Summary, branch_of, method_of
from mdprop.report.classes import Counts, hardest
from mdprop.report.comparisons import HEADLINE, MARK, STANDARD, interval_note, spread_note
from mdprop.report.confidence import UNKNOWN, Intervals
from mdprop.report.corruptions import corruption_table
from mdprop.report.curves import Curves
from mdprop.report.examples import choose
from mdprop.report.figures import recall_plots, target_plots, trade_plot, training_plots
from mdprop.report.findings import Findings
from mdprop.report.matrix import branch_matrices
from mdprop.report.page_inputs import input_table, settings_tables
from mdprop.report.page_tables import (
    against_table,
    distance_table,
    embedding_table,
    recall_table,
    score_table,
)
from mdprop.report.planes import plane_plots
from mdprop.report.rendering import template
from mdprop.report.sets import input_sets, levels
from mdprop.report.verdict import SIGNS, leader, verdicts
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
    examples: Mapping[str, Examples] = MappingProxyType({}),
    classes: Counts = MappingProxyType({}),
    ablations: Sequence[Mapping[int, str]] = (),
    evaluated: str = "test",
) -> str:
    """The page as text; `write_report` says what the arguments are."""
    sets = [replace(s, levels=levels(s.threat, channel_std)) for s in input_sets(summary, threats)]
    attacked = [s for s in sets if s.name != CLEAN]
    names = {label: name for found in examples.values() for label, name in found.classes.items()}
    page = template("index.html.j2", "mdprop.report").render(
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
        plots=[*recall_plots(summary, sets, intervals), *target_plots(summary, ablations, intervals)],
        evaluated=evaluated,
        leader=leader(summary, intervals),
        signs=SIGNS,
        verdicts=verdicts(summary, sets, intervals),
        trade=trade_plot(summary, intervals),
        matrices=branch_matrices(summary, sets, intervals),
        grid=choose(examples),
        planes=plane_plots(examples),
        hardest=hardest(classes, names),
        commands=_commands(provenance),
        curves=training_plots(curves),
        settings=settings_tables(settings),
        provenance=settings_tables({"provenance": provenance}),
    )
    return _with_contents(page)


def _with_contents(page: str) -> str:
    """The page with links to its sections."""
    found = re.findall(r'<h2 id="([^"]*)">(.*?)</h2>', page)[1:]  # the first is above them
    links = "\n".join(f'<a href="#{name}">{title}</a>' for name, title in found)
    return page.replace('<nav aria-label="Sections">', f'<nav aria-label="Sections">\n{links}\n', 1)


def _commands(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(command, what it does): how to get these results again."""
    commit = str(provenance.get("commit", ""))
    found = []
    if re.fullmatch(r"[0-9a-f]{7,40}\+?", commit):
        edited = "; it had changes that are not in it" if commit.endswith("+") else ""
        found.append((f"git switch --detach {commit.rstrip('+')}", f"the code that trained{edited}"))
    return [
        *found,
        ("dvc repro", "all stages, with the parameters below in params.yaml"),
        ("mdprop table", "the table of Recall@1 in the terminal"),
        ("mdprop check --baseline baselines/default.json", "the results against those of the default run"),
    ]
