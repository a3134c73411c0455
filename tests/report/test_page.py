from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mdprop.errors import ResultError
from mdprop.report.aggregate import Summary, aggregate
from mdprop.report.page import embedding_table, input_table, recall_table, render_page, settings_tables
from mdprop.report.tables import input_sets
from tests.report.synthetic import EPSILONS, METHODS, make_runs

VOID = {"meta", "img"}


class Page(HTMLParser):
    """Tables by caption as rows of (tag, scope, text), images, headings; refuses unbalanced tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[tuple[str, str | None, str]]]] = {}
        self.images: list[dict[str, str | None]] = []
        self.ids: list[str] = []
        self.bold: list[str] = []
        self._open: list[str] = []
        self._rows: list[list[tuple[str, str | None, str]]] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert tag not in ("script", "link", "iframe")
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if tag == "img":
            self.images.append(given)
        if tag not in VOID:
            self._open.append(tag)
        if tag == "table":
            self._rows = []
        if tag == "tr":
            self._rows.append([])
        if tag in ("th", "td"):
            self._rows[-1].append((tag, given.get("scope"), ""))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "caption" in self._open:
            self.tables[data] = self._rows
        elif "th" in self._open or "td" in self._open:
            tag, scope, text = self._rows[-1][-1]
            self._rows[-1][-1] = (tag, scope, f"{text} {data}".strip())
            if "strong" in self._open:
                self.bold.append(data)


def page(summary: Summary, **changes: Any) -> str:
    arguments: dict[str, Any] = {
        "seeds": [0],
        "epsilons": EPSILONS,
        "units": "pixel",
        "channel_std": [0.25],
        "settings": {"dataset": {"name": "glyphs"}, "attack": {"targets": 5}},
        "provenance": {"commit": "abc123"},
    }
    return render_page(summary, **{**arguments, **changes})


def write_curves(folder: Path, method: str, seed: int) -> None:
    for metric, values in {"train/loss": (1.5, 0.9, 0.7), "validation/recall_at_1": (0.3, 0.55)}.items():
        path = folder / method / str(seed) / "plots" / "metrics" / f"{metric}.tsv"
        path.parent.mkdir(parents=True)
        lines = [f"{step}\t{value}" for step, value in enumerate(values)]
        path.write_text("\n".join([f"step\t{path.stem}", *lines]) + "\n")


def test_page_is_self_contained_and_accessible(tmp_path: Path) -> None:
    for method in METHODS:
        write_curves(tmp_path, method, 0)
    text = page(aggregate(make_runs()), live_dir=tmp_path)
    found = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    assert '<html lang="en">' in text
    assert 'name="viewport"' in text
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", text)
    assert "url(" not in text
    assert len(set(found.ids)) == len(found.ids)
    for rows in found.tables.values():
        heads = [(tag, scope) for row in rows for tag, scope, _ in row if tag == "th"]
        assert heads
        assert all(scope in ("col", "colgroup", "row") for _, scope in heads)
    assert len(found.images) == 4 + 1 + 2  # a goal each, Recall@K, loss and validation
    for image in found.images:
        assert "mdprop: " in str(image["alt"])
        kind, data = str(image["src"]).split(",")
        assert kind == "data:image/svg+xml;base64"
        svg = base64.b64decode(data).decode()
        assert "<svg" in svg
        assert "<dc:date>" not in svg


def test_headline_has_every_method_and_set_and_the_best_in_bold() -> None:
    summary = {
        "standard": {"clean": {"recall_at_1": {"mean": 0.8, "std": 0.0, "n": 1}}},
        "mdprop": {"clean": {"recall_at_1": {"mean": 0.816, "std": 0.0, "n": 1}}},
    }
    found = Page(page(summary))
    rows = next(rows for caption, rows in found.tables.items() if "clean gallery" in caption)
    assert [[text for _, _, text in row] for row in rows[2:]] == [
        ["standard", "80.0"],
        ["mdprop", "81.6 +1.6"],
    ]
    assert found.bold == ["81.6"]


def test_colgroups_span_the_columns() -> None:
    summary = aggregate(make_runs())
    table = recall_table(summary, input_sets(summary, EPSILONS), "recall_at_1", "caption")
    assert table is not None
    assert list(table.groups) == [
        ("clean", 1),
        ("single-targeted", 3),
        ("multi-targeted", 3),
        ("untargeted", 1),
        ("unadversarial", 1),
    ]
    assert all(len(cells) == len(table.heads) == 9 for _, cells in table.rows)


def test_equal_values_are_both_best_and_a_lone_one_is_not() -> None:
    def stat(value: float) -> dict[str, dict[str, Any]]:
        return {"clean": {"recall_at_1": {"mean": value, "std": 0.0, "n": 1}}}

    def bold(summary: Any) -> list[bool]:
        table = recall_table(summary, input_sets(summary, {}), "recall_at_1", "")
        assert table is not None
        return [cells[0].best for _, cells in table.rows]

    assert bold({"a": stat(0.80001), "b": stat(0.80002), "c": stat(0.7)}) == [True, True, False]
    assert bold({"a": stat(0.8)}) == [False]


def test_second_protocol_only_where_a_run_has_it() -> None:
    assert "Second protocol" in page(aggregate(make_runs()))
    runs = {"at": {0: {"clean": {"recall_at_1": 0.5}, "untargeted": {"recall_at_1": 0.2}}}}
    assert "Second protocol" not in page(aggregate(runs))


def test_page_of_little_still_renders() -> None:
    text = page(aggregate({"at": {0: {"clean": {"nmi": 0.5}}}}), epsilons={}, settings={}, provenance={})
    Page(text)
    assert "No run has Recall@1." in text
    assert "Provenance" not in text


def test_page_without_standard_says_so() -> None:
    assert "no <em>standard</em> method to compare with" in page(aggregate(make_runs(["at", "mdprop"])))


def test_page_escapes_what_it_is_given() -> None:
    text = page(aggregate(make_runs()), provenance={"note": "<script>alert(1)</script>"})
    Page(text)
    assert "&lt;script&gt;" in text


def test_embedding_table_holds_what_is_there() -> None:
    table = embedding_table(aggregate({"at": {0: {"clean": {"nmi": 0.5, "spectral_decay": 0.1234}}}}))
    assert table is not None
    assert (list(table.heads), list(table.groups)) == (
        ["NMI", "decay"],
        [("retrieval and clusters, %", 1), ("spectrum", 1)],
    )
    assert [cell.text for cell in table.rows[0][1]] == ["50.0", "0.123"]
    assert embedding_table({"at": {"clean": {}}}) is None


@pytest.mark.parametrize(
    ("units", "std", "expected"),
    [
        ("pixel", [0.25], ["0.1", "25.5", "0.4"]),
        ("pixel", [0.25, 0.2], ["0.1", "25.5", "0.4 / 0.5"]),
        ("normalized", [0.25, 0.2], ["0.025 / 0.02", "6.38 / 5.1", "0.1"]),
        ("pixel", [], ["0.1", "25.5", "–"]),
    ],
)
def test_input_table_states_epsilon_in_every_unit(units: str, std: list[float], expected: list[str]) -> None:
    summary = aggregate({"at": {0: {"untargeted_middle": {"queries": 500}}}})
    table = input_table(summary, input_sets(summary, {"untargeted_middle": 0.1}), units, std)
    assert [cell.text for cell in table.rows[0][1]] == ["untargeted", *expected, "500"]


def test_settings_are_flattened_by_section() -> None:
    tables = settings_tables(
        {"seeds": [0, 1], "loss": {"name": "ms", "options": {"margin": 0.1}}, "empty": {}}
    )
    found = {t.caption: [(key, cells[0].text) for key, cells in t.rows] for t in tables}
    assert found == {"general": [("seeds", "0, 1")], "loss": [("name", "ms"), ("options.margin", "0.1")]}


def test_training_curves_of_named_seeds_only(tmp_path: Path) -> None:
    summary = aggregate(make_runs(["at", "mdprop"], [0, 1]))
    write_curves(tmp_path, "at", 0)
    write_curves(tmp_path, "mdprop", 7)
    images = Page(page(summary, seeds=[0, 1], live_dir=tmp_path)).images[-2:]
    assert "at: 1.5 at 0, 0.9 at 1, 0.7 at 2." in str(images[0]["alt"])
    assert "at: 30 at 0, 55 at 1." in str(images[1]["alt"])
    assert "mdprop" not in str(images[0]["alt"])
    assert "Training" not in page(summary, live_dir=tmp_path / "none")


@pytest.mark.parametrize("content", ["step\tother\n0\t1\n", "step\tloss\n0\n", "step\tloss\n0\tx\n"])
def test_corrupt_curve_names_its_file(tmp_path: Path, content: str) -> None:
    write_curves(tmp_path, "at", 0)
    (tmp_path / "at" / "0" / "plots" / "metrics" / "train" / "loss.tsv").write_text(content)
    with pytest.raises(ResultError, match=r"loss\.tsv is no table of step and loss"):
        page(aggregate(make_runs(["at"])), live_dir=tmp_path)
