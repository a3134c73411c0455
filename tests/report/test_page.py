from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from mdprop.attacks.threat import Threat
from mdprop.errors import ResultError
from mdprop.report.aggregate import Summary, aggregate, collect
from mdprop.report.confidence import UNKNOWN, Comparison, Intervals
from mdprop.report.curves import Curves, read_curves
from mdprop.report.page import render_page
from mdprop.runs import Run
from mdprop.statistics import Interval
from tests.report.synthetic import THREATS, make_rows, runs_of, write_curves, write_runs

VOID = {"meta", "img", "wbr"}


class Page(HTMLParser):
    """Tables by caption as rows of (tag, scope, text), plots, images, ids; refuses unbalanced tags."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[tuple[str, str | None, str]]]] = {}
        self.plots: list[dict[str, str | None]] = []
        self.images: list[dict[str, str | None]] = []
        self.ids: list[str] = []
        self.bold: list[str] = []
        self._open: list[str] = []
        self._broken = False
        self._rows: list[list[tuple[str, str | None, str]]] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._broken = tag == "wbr"
        assert tag not in ("link", "iframe")
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if tag == "img":
            self.images.append(given)
        if tag == "svg":
            self.plots.append(given)
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
            between = "" if self._broken else " "
            self._rows[-1][-1] = (tag, scope, f"{text}{between}{data}".strip())
            if "strong" in self._open and "td" in self._open:
                self.bold.append(data)


def page(
    summary: Summary,
    threats: Mapping[str, Threat] = THREATS,
    curves: Curves = MappingProxyType({}),
    provenance: Mapping[str, Any] = MappingProxyType({"commit": "abc123"}),
    intervals: Intervals = UNKNOWN,
    notes: Sequence[str] = (),
) -> str:
    settings = {"seeds": [0], "dataset": {"name": "glyphs"}, "attack": {"targets": 5}}
    return render_page(
        summary,
        threats,
        curves,
        channel_std=[0.25],
        settings=settings,
        provenance=provenance,
        notes=notes,
        intervals=intervals,
    )


def texts(page: str) -> str:
    """What a reader sees, in one line."""
    return " ".join(re.sub("<[^>]*>", "", page.partition("<body>")[2]).split())


def test_page_is_self_contained_and_accessible(folder: Path) -> None:
    for run in runs_of():
        write_curves(run)
    text = page(aggregate(make_rows()), curves=read_curves(runs_of()))
    found = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    assert '<html lang="en">' in text
    assert 'name="viewport"' in text
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", text)
    assert set(re.findall(r"url\(([^)])", text)) <= {"#"}  # clip paths of plots
    assert "default-src 'none'" in text
    assert len(set(found.ids)) == len(found.ids)
    for rows in found.tables.values():
        heads = [(tag, scope) for row in rows for tag, scope, _ in row if tag == "th"]
        assert heads
        assert all(scope in ("col", "colgroup", "row") for _, scope in heads)
    assert len(found.plots) == 1 + 2 + 1 + 2  # trade, families of several radii, Recall@K, loss, validation
    for plot in found.plots:
        assert "mdprop: " in str(plot["aria-label"])
        assert plot["role"] == "img"
    assert "<dc:date>" not in text


CLEAN_ONLY: Summary = {
    "standard": {"clean": {"recall_at_1": {"mean": 0.8, "std": 0.0, "n": 1}}},
    "mdprop": {"clean": {"recall_at_1": {"mean": 0.816, "std": 0.0, "n": 1}}},
}


def test_headline_has_every_method_and_set_and_nothing_bold() -> None:
    found = Page(page(CLEAN_ONLY))
    rows = next(rows for caption, rows in found.tables.items() if "clean gallery" in caption)
    assert [[text for _, _, text in row] for row in rows[2:]] == [
        ["standard", "80.0"],
        ["mdprop", "81.6 +1.6"],
    ]
    assert found.bold == []
    assert "interval" not in texts(page(CLEAN_ONLY))


@pytest.mark.parametrize(("low", "bold"), [(0.01, True), (-0.01, False)])
def test_what_differs_beyond_its_interval_is_marked(low: float, bold: bool) -> None:
    better = Comparison(Interval(0.016, low, 0.04), None)
    intervals = Intervals(
        {"mdprop": {"clean": Interval(0.816, 0.77, 0.85)}}, {"standard": {"mdprop": {"clean": better}}}
    )
    text = page(CLEAN_ONLY, intervals=intervals)
    found = Page(text)
    rows = next(rows for caption, rows in found.tables.items() if "clean gallery" in caption)
    mark = "*" if bold else ""
    assert [cell for _, _, cell in rows[3]] == ["mdprop", f"81.6 77.0–85.0 +1.6{mark}"]
    rows = next(rows for caption, rows in found.tables.items() if "against standard" in caption)
    assert [cell for _, _, cell in rows[2]] == ["mdprop", f"+1.6{mark} {100 * low:+.1f} to +4.0"]
    assert found.bold == (["+1.6*", "+1.6*"] if bold else [])
    assert "over queries, as if other classes had been drawn. Each interval stands alone" in texts(text)
    assert "bold and with * where the two differ beyond the interval of 95&nbsp;% of their" in texts(text)


def test_the_page_says_that_the_worst_case_is_the_number_to_quote() -> None:
    quoted = (
        "The worst case is the number to quote: a query counts only where it is right under every attack."
    )
    assert quoted in texts(page(aggregate(make_rows())))
    assert "worst case" not in texts(page(CLEAN_ONLY)).lower()


def test_second_protocol_only_where_a_run_has_it() -> None:
    assert "Second protocol" in page(aggregate(make_rows()))
    rows = {"at": {0: {"clean": {"recall_at_1": 0.5}, "untargeted": {"recall_at_1": 0.2}}}}
    assert "Second protocol" not in page(aggregate(rows))


def test_how_far_attacks_get_only_where_it_was_measured() -> None:
    found = Page(page(aggregate(make_rows())))
    moved = found.tables["Distance from an image's clean embedding, mean"]
    assert [text for _, _, text in moved[2]][:4] == ["standard", "0.250", "0.500", "1.000"]
    approach = found.tables["Share of the way to the targets, mean"]
    assert [text for _, _, text in approach[0]][1:] == ["single-targeted", "multi-targeted", "unadversarial"]
    rows = {"at": {0: {"clean": {"recall_at_1": 0.5}, "untargeted": {"recall_at_1": 0.2}}}}
    assert "How far" not in page(aggregate(rows))


def test_page_of_little_still_renders() -> None:
    text = page(aggregate({"at": {0: {"clean": {"nmi": 0.5}}}}), threats={}, provenance={})
    Page(text)
    assert "No run has Recall@1." in text
    assert "Provenance" not in text


def test_page_says_which_branches_answer(folder: Path) -> None:
    runs = runs_of(["standard", "mdprop"])
    write_runs(runs, {"mdprop": ["clean", "multi_target", "clean+25%multi_target"]})
    text = page(aggregate(collect(runs)))
    found = Page(text)
    rows = next(rows for caption, rows in found.tables.items() if "clean gallery" in caption)
    names = ["standard", "mdprop", "mdprop@multi_target", "mdprop@clean+25%multi_target"]
    assert [row[0][2] for row in rows[2:]] == names
    for plot in found.plots:
        assert "mdprop@multi_target: " in str(plot["aria-label"])
    assert "2 training methods, compared" in texts(text)
    assert (
        "through its clean batch-norm branch; in a row with an @, through the branch or the mixture of two "
        "that is named after it: multi_target, clean+25%multi_target." in texts(text)
    )
    assert "through its clean batch-norm branch." in texts(page(aggregate(make_rows())))


def test_page_of_other_attacks() -> None:
    threats = {
        "brief": Threat(goal="single_target", epsilon=0.1),
        "long": Threat(goal="single_target", epsilon=0.1, steps=50),
        "longer": Threat(goal="single_target", epsilon=0.2, steps=50),
        "round": Threat(goal="single_target", epsilon=2.0, norm="l2"),
        "rounder": Threat(goal="single_target", epsilon=3.0, norm="l2"),
    }
    found = Page(page(aggregate(make_rows(["at", "mdprop"], threats=threats)), threats))
    rows = next(rows for caption, rows in found.tables.items() if "clean gallery" in caption)
    heads = ["ε 0.1, steps 10 25.5/255", "ε 0.1, steps 50 25.5/255", "ε 0.2 51/255", "ℓ2 2", "ℓ2 3"]
    assert [text for _, _, text in rows[1]] == heads
    alts = [str(plot["aria-label"]) for plot in found.plots][1:]
    assert [alt.split(", by ")[0].removeprefix("Line plot. ") for alt in alts] == [
        "Recall@1 under single-targeted examples: ℓ∞, steps 50",
        "Recall@1 under single-targeted examples: ℓ2, steps 10",
        "Recall@1 by steps: single-targeted, ε 0.1",
        "Recall@K on clean images",
    ]
    assert "ℓ2 radius in pixels of [0, 1]; 0 is clean" in alts[1]


def test_sets_without_a_known_attack_go_by_their_names() -> None:
    found = Page(page(aggregate(make_rows()), threats={}))
    rows = next(rows for caption, rows in found.tables.items() if "clean gallery" in caption)
    assert "single target middle" in [text for _, _, text in rows[0]]
    assert len(found.plots) == 2


def test_page_without_standard_says_so() -> None:
    assert "no <em>standard</em> method to compare with" in page(aggregate(make_rows(["at", "mdprop"])))


def test_page_escapes_what_it_is_given() -> None:
    text = page(aggregate(make_rows()), provenance={"note": "<script>alert(1)</script>"})
    Page(text)
    assert "&lt;script&gt;" in text


def test_training_curves_of_named_runs_only(folder: Path) -> None:
    runs = runs_of(["at", "mdprop"], [0, 1])
    write_curves(Run("at", 0), every=2)
    write_curves(Run("mdprop", 7))
    summary = aggregate(make_rows(["at", "mdprop"], [0, 1]))
    words = [str(plot["aria-label"]) for plot in Page(page(summary, curves=read_curves(runs))).plots[-2:]]
    assert "at: 1.5 at 1, 0.9 at 2, 0.7 at 3." in words[0]
    assert "at: 45 at 2." in words[1]
    assert "mdprop" not in words[0]
    assert 'id="training"' not in page(summary, curves=read_curves([Run("mdprop", 1)]))


@pytest.mark.parametrize("content", ["step\tother\n0\t1\n", "step\tloss\n0\n", "step\tloss\n0\tx\n"])
def test_corrupt_curve_names_its_file(folder: Path, content: str) -> None:
    run = Run("at", 0)
    write_curves(run)
    (run.live / "plots" / "metrics" / "train" / "loss.tsv").write_text(content)
    with pytest.raises(ResultError, match=r"loss\.tsv is no table of step and loss"):
        read_curves([run])


def test_numbers_of_validation_classes_are_called_so_beside_the_verdict() -> None:
    summary = aggregate(make_rows())
    given: Any = {"channel_std": [0.2], "settings": {}, "provenance": {}}
    text = render_page(summary, THREATS, {}, evaluated="validation", **given)
    assert "compared on validation classes" in text
    verdict = text.partition('<h2 id="verdict">')[2].partition("<nav")[0]
    assert "These are validation classes" in verdict
    assert "validation" not in render_page(summary, THREATS, {}, **given).partition('<h2 id="headline">')[0]


def test_notes_about_the_images() -> None:
    notes = ["2 image(s) left out: a/<b>.png", "1 image(s) with the pixels of one in another split"]
    text = page(aggregate(make_rows()), notes=notes)
    for note in ("<li>2 image(s) left out: a/&lt;b&gt;.png</li>", f"<li>{notes[1]}</li>"):
        assert note in text
    assert "About the images themselves" not in page(aggregate(make_rows()))
