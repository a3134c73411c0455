"""The page that the pipeline makes."""

from __future__ import annotations

from mdprop.data.stores.examples import read_examples
from mdprop.runs import Run
from tests.pipeline.conftest import Project

LARGEST = 5 * 10**6


def test_the_page_is_small_and_shows_the_runs(project: Project) -> None:
    page = project.path / "report" / "index.html"
    assert page.stat().st_size < LARGEST
    text = page.read_text()
    for section in ("verdict", "trade", "examples", "map", "classes", "commands"):
        assert f'<h2 id="{section}">' in text
    assert "Rescued by mdprop" in text


def test_every_run_has_the_same_queries_as_examples(project: Project) -> None:
    found = [read_examples(Run(m, 0, project.path / "runs").examples) for m in ("standard", "at", "mdprop")]
    queries = [[query.id for query in examples.queries] for examples in found]
    assert queries[0] == queries[1] == queries[2]
    assert {examples.input_set for examples in found} == {"untargeted_middle"}
