"""Every number in a table of results on the page is one of the stored results, rounded."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from mdprop.report import write_report
from tests.report.synthetic import THREATS, runs_of, write_runs

NUMBER = re.compile(r"(?<![\w.])[+-]?\d+(?:\.\d+)?")


class Results(HTMLParser):
    """(caption, row, exact value or None, text) of each cell of the tables that sort, and the verdict."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.cells: list[list[Any]] = []
        self.verdict = ""
        self._open: list[str] = []
        self._caption = self._row = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag == "table":
            self._caption, self._sorts = "", "sortable" in str(given["class"])
        if tag == "tr":
            self._row = ""
        if tag == "td" and self._sorts:
            self.cells.append([self._caption, self._row, given.get("data-value"), ""])
        if tag not in ("meta", "img", "wbr"):
            self._open.append(f"{tag}.{given.get('class')}")

    def handle_endtag(self, tag: str) -> None:
        self._open.pop()

    def handle_data(self, data: str) -> None:
        tags = [tag.partition(".")[0] for tag in self._open]
        if "caption" in tags:
            self._caption += data
        elif "tbody" in tags and "th" in tags:
            self._row += data
        elif "td" in tags and self._sorts:
            self.cells[-1][3] += f" {data}"
        elif "ul.verdict" in self._open or "p.lead" in self._open:
            self.verdict += f" {data}"


def numbers(content: Any) -> Iterator[float]:
    if isinstance(content, dict):
        for value in content.values():
            yield from numbers(value)
    elif isinstance(content, (int, float)) and not isinstance(content, bool):
        yield float(content)


def written(values: set[float]) -> set[str]:
    """How these may stand on the page: as they are or in percent, with 0 to 3 digits after the point."""
    return {
        f"{round(scale * value, digits) + 0.0:.{digits}f}".lstrip("-")
        for value in values
        for scale in (1, 100)
        for digits in range(4)
    }


def test_every_number_is_stored(folder: Path) -> None:
    runs = runs_of(seeds=(0, 1))
    write_runs(runs, {"mdprop": ["clean", "multi_target"]}, THREATS, ["fog_1", "fog_3"])
    write_report("report", runs, THREATS, channel_std=[0.25], settings={}, provenance={})
    report = folder / "report"
    metrics = json.loads((report / "metrics.json").read_text())
    intervals = json.loads((report / "intervals.json").read_text())
    against = intervals["against"]
    rows = {row: set(numbers(metrics[row])) for row in metrics}
    for row in rows:
        rows[row] |= set(numbers(intervals["recall_at_1"][row]))
        for reference in against:
            rows[row] |= set(numbers(against[reference].get(row, {})))
            for name, value in metrics.get(reference, {}).items():
                own = metrics[row].get(name, {})
                for metric in set(own) & set(value):  # differences and ratios of table.csv
                    rows[row].add(own[metric]["mean"] - value[metric]["mean"])
                    if value[metric]["mean"]:
                        rows[row].add(own[metric]["mean"] / value[metric]["mean"])
    with (report / "corruptions.csv").open() as file:
        for line in csv.DictReader(file):
            if line["recall_at_1"]:
                rows[line["method"]].add(float(line["recall_at_1"]))
    with (report / "classes.csv").open() as file:
        classes = {(line["class"], line["hits"], line["queries"]) for line in csv.DictReader(file)}
    page = Results((report / "index.html").read_text())
    assert len(page.cells) > 200
    for caption, row, value, text in page.cells:
        if caption.startswith("The classes"):
            assert (row, *re.findall(r"\d+", text)) in classes
        elif caption != "The input sets":
            known = written(rows[row])
            assert [n for n in NUMBER.findall(text) if n.lstrip("+-") not in known] == [], (
                caption,
                row,
                text,
            )
            if value is not None:
                assert any(abs(float(value) - stored) < 1e-6 for stored in rows[row]), (caption, row, value)
                assert NUMBER.findall(text)[0].lstrip("+-") in written({float(value)})
    said = written({value for values in rows.values() for value in values}) | {str(n) for n in range(12)}
    found = NUMBER.findall(page.verdict)
    assert len(found) > 20
    assert [n for n in found if n.lstrip("+-") not in said] == []
