"""The pages of the report and of a comparison in a real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from mdprop.attacks.threat import Threat
from mdprop.experiments.comparison import compare_experiments
from mdprop.experiments.page import comparison_page
from mdprop.experiments.repository import TestImages
from mdprop.report import write_report
from tests.experiments.made import experiment
from tests.report.synthetic import THREATS, runs_of, write_curves, write_runs

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("needs chromium (apt-get install chromium)", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

pytestmark = pytest.mark.slow

WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
COLOUR = re.compile(r"rgb\((\d+), (\d+), (\d+)\)")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a report with all there is: branches and their matrix, steps, an ablation, warnings."""
    folder, before = tmp_path_factory.mktemp("report"), Path.cwd()
    os.chdir(folder)
    try:
        threats = {
            **THREATS,
            "long": Threat(goal="untargeted", epsilon=0.1, steps=50),
            "through_clean": Threat(goal="untargeted", epsilon=0.1, branch="clean"),
            "transfer": Threat(goal="untargeted", epsilon=0.1, source="standard/0"),
            "round": Threat(goal="single_target", epsilon=2.0, norm="l2"),
        }
        runs = runs_of()
        corruptions = ("fog_1", "fog_3", "jpeg_1")
        write_runs(runs, {"mdprop": ["clean", "clean+25%multi_target"]}, threats, corruptions)
        for run in runs:
            write_curves(run)
        write_report(
            "report",
            runs,
            threats,
            channel_std=[0.2, 0.3],
            settings={
                "loss": {"name": "multi_similarity", "a_key_that_is_rather_long.and_one_below_it": 0.1}
            },
            provenance={"commit": "abc123def456+", "torch": "2.4"},
            notes=["2 image(s) left out, as they cannot be used: a/<b>.png"],
            ablations=[{1: "advprop", 5: "mdprop"}],
            evaluated="validation",
        )
    finally:
        os.chdir(before)
    return (folder / "report" / "index.html").as_uri()


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a comparison with long names and values, other methods, other images, validation."""
    folder = tmp_path_factory.mktemp("comparison")
    branches = ["clean", "multi_target", "clean+50%multi_target"]
    others: dict[str, Any] = {"dataset__evaluate": "validation", "adversary__branches": branches}
    experiments = [
        experiment("HEAD", attack__targets=1),
        experiment("a_long_name_without_a_hyphen_" * 3, 0.7, attack__targets=5, **others),
        experiment("brown-fox", 0.6, methods=["at", "mdprop"], attack__targets=3, loss__a__long__key=None),
        experiment("elsewhere", 0.6, images=TestImages("other")),
    ]
    (folder / "compare.html").write_text(comparison_page(compare_experiments(experiments)), encoding="utf-8")
    return (folder / "compare.html").as_uri()


@pytest.fixture(scope="module", params=["report", "comparison"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each of the pages."""
    yield request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        # Without a sandbox: a container's root has none.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visit:
    """A visit to the page: what it asks the network for, and what it complains about."""

    def __init__(self, browser: sync_api.Browser, address: str, **context: object) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page = browser.new_context(**context).new_page()
        self.page.set_default_timeout(120_000)  # of a busy machine
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(address)

    def column(self, table: int, column: int) -> list[str]:
        """The first text of each cell of a column."""
        script = "(table, at) => [...table.tBodies[0].rows].map(row => row.cells[at].firstChild.textContent)"
        return self.page.locator("table.sortable").nth(table).evaluate(script, column)


@pytest.fixture(scope="module", params=["light", "dark"])
def shown(request: pytest.FixtureRequest, browser: sync_api.Browser, address: str) -> Iterator[Visit]:
    """One visit in each scheme, which nothing changes."""
    visit = Visit(browser, address, viewport=WIDE, color_scheme=request.param)
    yield visit
    visit.page.context.close()


@pytest.fixture
def visit(browser: sync_api.Browser, address: str) -> Iterator[Visit]:
    """A visit of one's own to each of the pages."""
    visit = Visit(browser, address, viewport=WIDE)
    yield visit
    visit.page.context.close()


@pytest.fixture
def reported(browser: sync_api.Browser, report: str) -> Iterator[Visit]:
    """A visit of one's own to the report."""
    visit = Visit(browser, report, viewport=WIDE)
    yield visit
    visit.page.context.close()


def test_it_asks_no_network_and_complains_of_nothing(shown: Visit, address: str) -> None:
    shown.page.wait_for_load_state("networkidle")
    assert [url for url in shown.requests if not url.startswith("data:")] == [address]
    assert shown.complaints == []


def test_its_policy_would_block_the_network(visit: Visit) -> None:
    visit.page.evaluate(
        "document.body.append(Object.assign(new Image(), {src: 'https://example.org/a.png'}))"
    )
    visit.page.wait_for_timeout(100)
    assert any("Content Security Policy" in text for text in visit.complaints)


def test_no_axe_violation(shown: Visit) -> None:
    results = axe.Axe().run(shown.page)
    assert len(results.response["passes"]) > 15
    assert results.violations_count == 0, results.generate_report()


def test_every_picture_of_the_report_is_there_and_has_words(reported: Visit) -> None:
    script = """[...document.images].map(i => [i.naturalWidth, i.alt])"""
    images = reported.page.evaluate(script)
    assert len(images) > 20
    assert all(width > 0 and len(alt) > 5 for width, alt in images)
    assert reported.page.locator("svg").count() > 10


def test_every_plot_has_words(shown: Visit) -> None:
    plots = shown.page.evaluate(
        "[...document.querySelectorAll('svg')].map(s => s.getAttribute('aria-label'))"
    )
    assert len(plots) >= 2
    assert all(words and len(words) > 40 for words in plots)
    ids = shown.page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("window", [WIDE, NARROW], ids=["1280", "390"])
def test_only_tables_are_wider_than_the_window(visit: Visit, window: sync_api.ViewportSize) -> None:
    visit.page.set_viewport_size(window)
    widths = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    width, room = visit.page.evaluate(widths)
    assert width <= room == window["width"]


def test_the_page_is_as_dark_as_it_is_asked_to_be(shown: Visit) -> None:
    def brightness(script: str) -> float:
        found = COLOUR.fullmatch(shown.page.evaluate(script))
        assert found
        return sum(map(int, found.groups())) / 3

    back = brightness("getComputedStyle(document.body).backgroundColor")
    text = brightness("getComputedStyle(document.body).color")
    label = brightness("getComputedStyle(document.querySelector('svg [id*=xtick] [id*=text] g')).fill")
    dark = shown.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert (back < 60 and min(text, label) > 180) if dark else (back > 240 and max(text, label) < 60)


SORT = """table => [...table.tHead.querySelectorAll("[data-column]")].map(head => {
    const at = Number(head.dataset.column);
    const cells = () => [...table.tBodies[0].rows].map(row => row.cells[at]);
    const states = [0, 1].map(() => {
        head.querySelector("button").click();
        return {order: head.getAttribute("aria-sort"), texts: cells().map(cell => cell.textContent),
            values: cells().map(cell => cell.dataset.value ?? null),
            sorted: table.tHead.querySelectorAll("[aria-sort]:not([aria-sort=none])").length};
    });
    return states;
})"""


def test_every_column_of_every_table_sorts_both_ways(visit: Visit) -> None:
    columns = 0
    for table in visit.page.locator("table.sortable").all():
        if table.locator("tbody tr").count() < 2:
            continue
        for once, twice in table.evaluate(SORT):
            columns += 1
            assert {once["order"], twice["order"]} == {"ascending", "descending"}
            assert once["sorted"] == twice["sorted"] == 1
            assert sorted(once["texts"]) == sorted(twice["texts"])
            values = [float(value) for value in once["values"] if value is not None]
            if values:
                assert once["order"] == "descending"
                assert values == sorted(values, reverse=True)
                assert [float(value) for value in twice["values"] if value is not None] == sorted(values)
    assert columns >= 7


def test_a_table_sorts_by_keyboard_and_missing_values_stay_last(reported: Visit) -> None:
    page, visit = reported.page, reported
    button = page.locator("table.sortable thead .corner button").first
    button.focus()
    assert page.evaluate("document.activeElement.tagName") == "BUTTON"
    page.keyboard.press("Enter")
    names = visit.column(0, 0)
    assert names == sorted(names)
    page.keyboard.press("Space")
    assert visit.column(0, 0) == names[::-1]
    transfer = page.locator("table.sortable").first.locator("thead th", has_text="from standard/0").first
    for _ in range(2):
        transfer.locator("button").click()
        assert visit.column(0, int(transfer.get_attribute("data-column") or ""))[-1] == "–"


def test_every_table_and_figure_is_there_as_csv(shown: Visit) -> None:
    page = shown.page
    links = "all => all.map(p => [...p.querySelectorAll('a.csv')].map(a => [a.download, a.href]))"
    for found in page.locator(".table, figure").evaluate_all(links):
        ((name, address),) = found
        assert name.endswith(".csv")
        kind, _, text = address.partition(",")
        assert kind == "data:text/csv;charset=utf-8"
        header, *rows = csv.reader(io.StringIO(unquote(text)))
        assert rows and all(len(row) == len(header) for row in rows)
        assert len(set(header)) == len(header)


def test_a_click_saves_a_csv(reported: Visit) -> None:
    with reported.page.expect_download() as download:
        reported.page.locator("a.csv").first.click()
    assert download.value.suggested_filename == "recall-1-in-attacked-queries-clean-gallery.csv"
    assert Path(download.value.path()).read_text().startswith("method,clean")


def test_hits_and_misses_do_not_rely_on_colour(reported: Visit) -> None:
    page = reported.page
    for kind, sign, word, style in (("hit", "✓", "hit", "solid"), ("miss", "✗", "miss", "dashed")):
        found = page.locator(f".picture.{kind}").all()
        for picture in found[:5]:
            assert str(picture.locator("span").text_content()).startswith(sign)
            assert f", {word}:" in str(picture.locator("img").get_attribute("alt"))
        frame = found[0].locator("img").evaluate("i => getComputedStyle(i).borderTopStyle")
        assert frame == style
