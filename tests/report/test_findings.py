from __future__ import annotations

import json
from pathlib import Path

import pytest

from mdprop.errors import ResultError
from mdprop.files import sealed_json
from mdprop.report.findings import read_findings
from mdprop.report.page import render_page
from mdprop.report.page_tables import score_table
from mdprop.robustness.checks import Finding, to_json
from mdprop.runs import Run
from tests.report.synthetic import summary_of


def found(run: Run, *texts: str, branch: str = "clean") -> None:
    run.folder.mkdir(parents=True, exist_ok=True)
    findings = [Finding("no_gradient", ("a",), text, {"share": 0.5}) for text in texts]
    run.checks.write_text(to_json({"clean": [], branch: findings}))


def test_findings_say_whose_they_are(tmp_path: Path) -> None:
    runs = [Run("at", 0, tmp_path), Run("mdprop", 1, tmp_path)]
    found(runs[0], "a did nothing", "b did nothing")
    found(runs[1], "c did nothing", branch="multi_target")
    assert read_findings(runs) == [
        ("at, seed 0", "a did nothing"),
        ("at, seed 0", "b did nothing"),
        ("mdprop@multi_target, seed 1", "c did nothing"),
    ]


@pytest.mark.parametrize(
    "content", ["", "[]", *map(sealed_json, ({"clean": [3]}, {"clean": [{}]}, {"clean": 3}))]
)
def test_a_damaged_file_is_one_line(tmp_path: Path, content: str) -> None:
    run = Run("at", 0, tmp_path)
    run.folder.mkdir(parents=True)
    run.checks.write_text(content)
    with pytest.raises(ResultError, match=r"checks\.json .*run `dvc repro`"):
        read_findings([run])


def test_the_page_shows_findings_or_that_there_are_none() -> None:
    given = {"channel_std": [0.25], "settings": {}, "provenance": {}}
    summary = summary_of(standard=(0.8, 0.2), at=(0.8, 0.5))
    page = render_page(summary, {}, {}, findings=[("at, seed 0", "a < b")], **given)
    assert "</strong>: a &lt; b</li>" in page
    assert "None found anything" in render_page(summary, {}, {}, **given)


def test_the_score_stands_beside_its_parts_and_recall() -> None:
    summary = json.loads(json.dumps(summary_of(standard=(0.8, 0.2), at=(0.8, 0.5))))
    assert score_table(summary) is None
    parts = {"ca_plus": 1.5, "ca_minus": 90, "qa_plus": 2, "qa_minus": 88, "tma": 0.5, "esd": 1.2}
    parts |= {"es_recall": 3, "ltm": 2, "gtm": 4, "gtt": 1, "recall_at_1": 0.8, "spread": 0.9}
    values = {"empirical_robustness_score": 12.345, **parts}
    summary["at"]["robustness_score"] = {k: {"mean": v, "std": 0.0, "n": 1} for k, v in values.items()}
    table = score_table(summary)
    assert table is not None
    ((name, cells),) = table.rows
    assert (name, [cell.text for cell in cells[:4]]) == ("at", ["12.35", "80.0", "0.90", "1.50"])
    assert len(cells) == len(table.heads) == 13
