"""The comparison as a table, CSV, plots and a page."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from html.parser import HTMLParser

import pytest

from mdprop.experiments.comparison import Compared, compare_experiments
from mdprop.experiments.page import comparison_page, comparison_page_table
from mdprop.experiments.plots import comparison_plots, swept_parameter
from mdprop.experiments.repository import TestImages
from mdprop.experiments.tables import comparison_csv, comparison_table, value_text
from tests.experiments.made import experiment


def sweep(*values: float) -> Compared:
    return compare_experiments([experiment(f"e{v}", 0.2 + 0.1 * v, attack__targets=v) for v in values])


def read(compared: Compared) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(comparison_csv(compared))))


def test_the_csv_has_every_number() -> None:
    compared = sweep(1, 2, 5)
    rows = read(compared)
    assert len(rows) == 3 * 2 * 3
    for line in compared.lines:
        for name, recall in line.recall.items():
            (row,) = [
                r
                for r in rows
                if (r["experiment"], r["method"], r["input_set"]) == (line.experiment.name, line.method, name)
            ]
            assert row["attack.targets"] == str(line.experiment.parameters["attack.targets"])
            found = [float(row[f"recall_at_1{end}"]) for end in ("", "_low", "_high")]
            assert found == pytest.approx([recall.value, recall.low, recall.high], abs=1e-6)
            if line.experiment.name == "e1":
                assert (row["against"], row["difference"], row["differs"]) == ("", "", "")
                continue
            difference = line.against[name].difference
            found = [float(row[f"difference{end}"]) for end in ("", "_low", "_high")]
            assert found == pytest.approx([difference.value, difference.low, difference.high], abs=1e-6)
            assert row["against"] == "e1"
            assert row["differs"] == str(line.against[name].differs).lower()


def test_the_table_says_what_differs_beyond_chance() -> None:
    text = comparison_table(sweep(1, 5))
    assert text.splitlines()[1].split()[:3] == ["method", "experiment", "targets"]
    assert re.search(r"e5 +5 +\d\d\.\d  \d\d–\d\d", text)
    assert re.search(r"\+\d\d\.\d\* \+\d+\.\d to \+\d+\.\d", text)
    assert "from e1 in points" in text
    assert all(len(line) <= 100 for line in text.splitlines())


def test_the_table_says_what_it_could_not_compare() -> None:
    other = experiment("b", images=TestImages("another"))
    text = comparison_table(compare_experiments([experiment("a"), other]))
    assert "note: b and a were tested on other images" in text
    assert "No parameter differs." in text


def test_a_narrow_terminal_cuts_no_number() -> None:
    text = comparison_table(sweep(1, 5), width=30)
    assert text.count(" to ") == comparison_table(sweep(1, 5)).count(" to ") > 0


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.003, "0.003"), (None, "null"), (["clean", "a"], "[clean, a]"), (True, "true"), ("été", "été")],
)
def test_values_of_parameters(value: object, text: str) -> None:
    assert value_text({"key": value}, "key") == text
    assert value_text({}, "key") == "–"


@pytest.mark.parametrize(
    ("values", "swept"),
    [
        ((1, 2, 5.5), "attack.targets"),
        ((1, 2), None),
        ((1, 2, "x"), None),
        ((1, 2, True), None),
        ((1, 2, 2), None),
    ],
)
def test_a_sweep_is_of_one_number(values: Sequence[object], swept: str | None) -> None:
    found = [experiment(f"e{i}", attack__targets=value) for i, value in enumerate(values)]
    assert swept_parameter(compare_experiments(found)) == swept


def test_a_sweep_is_drawn_against_its_values_in_their_order() -> None:
    clean, worst = comparison_plots(sweep(5, 1, 2))
    assert [r.split(",")[1] for r in clean.csv.splitlines()[1:4]] == ["1.0", "2.0", "5.0"]
    assert clean.csv.splitlines()[0] == "row,attack.targets,Recall@1 (%),low,high"
    assert (clean.title, worst.title) == ("Recall@1, clean images", "Recall@1, worst case")


def test_others_are_drawn_by_name() -> None:
    pair = [experiment("HEAD"), experiment("brown-fox", 0.6, methods=["mdprop"], train__epochs=9, a__b=1)]
    clean, _ = comparison_plots(compare_experiments(pair))
    assert clean.alt.startswith("Dot plot. Recall@1, clean images. HEAD, standard: ")
    assert "brown-fox, mdprop: " in clean.alt
    assert len(clean.csv.splitlines()) == 4


class Links(HTMLParser):
    """What a page would load or go to."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]


def test_the_page_stands_alone_and_escapes_what_it_shows() -> None:
    pair = [experiment("HEAD"), experiment("<b>&", 0.9, loss__name="<script>alert(1)</script>")]
    compared = compare_experiments(pair)
    page = comparison_page(compared)
    links = Links()
    links.feed(page)
    assert all(link.startswith(("#", "data:")) for link in links.found)
    assert links.tags.count("script") == 1 and "alert(1)" not in page.split("<script>")[1]
    assert "b" not in links.tags
    assert "@import" not in page and "url(http" not in page
    assert links.tags.count("svg") == 2
    for line in compared.lines:
        for recall in line.recall.values():
            assert f'<td data-value="{recall.value}">{100 * recall.value:.1f}<small>' in page


def test_the_page_shows_first_what_is_looked_at_first_and_leaves_corruptions_to_the_csv() -> None:
    pair = [experiment("HEAD", a__b=1), experiment("e", 0.6, a__b=2)]
    for found in pair:
        found.results["mdprop"]["fog_3"] = found.results["mdprop"]["near"]
    compared = compare_experiments(pair)
    table = comparison_page_table(compared)
    assert [*table.heads] == ["", "clean", "worst case", "b", "near"]
    assert [*table.groups] == [("method", 1), ("Recall@1, %", 2), ("a", 1), ("Recall@1, %", 1)]
    label, (method, clean, *_, value, near) = table.rows[-1]
    line = compared.lines[-1]
    assert (label, method.text, value.text, value.value) == ("e", "mdprop", "2", 2.0)
    assert (clean.value, near.value) == (line.recall["clean"].value, line.recall["near"].value)
    assert clean.differs is line.against["clean"].differs
    assert "fog_3" in comparison_csv(compared)


def test_the_page_names_the_commit_where_the_name_is_another() -> None:
    table = comparison_page_table(compare_experiments([experiment("HEAD~1-of-x"), experiment("b")]))
    assert (table.groups[-1], [cells[-1].text for _, cells in table.rows][:2]) == (
        ("commit", 1),
        ["HEAD~1-", "b"],
    )


@pytest.mark.parametrize(
    ("evaluated", "who"), [(("validation",) * 2, "all experiments"), (("test", "validation"), "b")]
)
def test_numbers_of_validation_classes_are_called_so(evaluated: tuple[str, str], who: str) -> None:
    pair = [experiment(name, dataset__evaluate=value) for name, value in zip("ab", evaluated, strict=True)]
    compared = compare_experiments(pair)
    said = f"the numbers of {who} are of validation classes, not of test classes"
    assert compared.notes[0] == said
    assert said in comparison_page(compared)
    assert f"note: {said}" in " ".join(comparison_table(compared).split())
    assert not compare_experiments([experiment("a"), experiment("b")]).notes


def test_the_same_experiments_give_the_same_bytes() -> None:
    assert comparison_page(sweep(1, 2)) == comparison_page(sweep(1, 2))
