from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from mdprop.report.aggregate import aggregate
from mdprop.report.headline import headline_json
from tests.report.synthetic import make_rows

PROJECT = Path(__file__).parents[2]


def test_three_numbers_a_row() -> None:
    summary = aggregate(make_rows(seeds=(0, 1)))
    shown = json.loads(headline_json(summary))
    assert list(shown) == list(summary)
    for row, sets in summary.items():
        assert shown[row] == {
            "recall_at_1": sets["clean"]["recall_at_1"]["mean"],
            "worst_case": sets["worst_case"]["recall_at_1"]["mean"],
            "map_at_r": sets["clean"]["map_at_r"]["mean"],
        }


def test_what_is_missing_or_undefined_is_left_out() -> None:
    undefined: Any = {"at": {"clean": {"recall_at_1": {"mean": None, "std": None, "n": 2}}}}
    assert json.loads(headline_json(undefined)) == {"at": {}}


@pytest.mark.parametrize(("kind", "files"), [("metrics", ["summary.json"]), ("outs", ["metrics.json"])])
def test_dvc_shows_the_summary_and_git_keeps_both(kind: str, files: list[str]) -> None:
    report = YAML(typ="safe").load((PROJECT / "dvc.yaml").read_text())["stages"]["report"]
    kept = [path for entry in report[kind] if isinstance(entry, dict) for path in entry]
    assert kept == [f"report/{file}" for file in files]
    assert all(
        entry[path] == {"cache": False} for entry in report[kind] if isinstance(entry, dict) for path in entry
    )
    ignored = (PROJECT / ".gitignore").read_text().split()
    assert all(f"!/{path}" in ignored for path in kept)
