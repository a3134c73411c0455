"""report/intervals.json: what it says, and read back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from mdprop.errors import ResultError
from mdprop.files import sealed_json
from mdprop.report.confidence import UNKNOWN, Comparison, Intervals, intervals_json, load_intervals
from mdprop.statistics import Interval
from tests.report.synthetic import summary_of

SUMMARY = summary_of(standard=(0.8, 0.2), mdprop=(0.85, 0.4))
INTERVALS = Intervals(
    {
        "standard": {"clean": Interval(0.8, 0.75, 0.84), "single_target_middle": Interval(0.2, 0.15, 0.26)},
        "mdprop": {"clean": Interval(0.85, 0.8, 0.89)},
    },
    {
        "standard": {
            "mdprop": {
                "clean": Comparison(Interval(0.05, -0.01, 0.1), None),
                "single_target_middle": Comparison(Interval(0.2, 0.1, 0.3), Interval(2.0, 1.2, math.inf)),
            }
        }
    },
)


def test_the_file_has_the_ends_and_what_differs() -> None:
    content = json.loads(intervals_json(INTERVALS))
    assert content["recall_at_1"] == {
        "standard": {
            "clean": {"low": 0.75, "high": 0.84},
            "single_target_middle": {"low": 0.15, "high": 0.26},
        },
        "mdprop": {"clean": {"low": 0.8, "high": 0.89}},
    }
    assert content["against"] == {
        "standard": {
            "mdprop": {
                "clean": {
                    "difference": {"value": 0.05, "low": -0.01, "high": 0.1},
                    "ratio": None,
                    "differs": False,
                },
                "single_target_middle": {
                    "difference": {"value": 0.2, "low": 0.1, "high": 0.3},
                    "ratio": {"value": 2.0, "low": 1.2, "high": None},
                    "differs": True,
                },
            }
        }
    }


def test_it_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "intervals.json"
    assert load_intervals(path, SUMMARY) == UNKNOWN
    path.write_text(intervals_json(INTERVALS))
    assert load_intervals(path, SUMMARY) == INTERVALS


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"recall_at_1": {"at": {"clean": {"low": 0.1}}}, "against": {}},
        {"recall_at_1": {"at": {"clean": 0.1}}, "against": {}},
        {"recall_at_1": {"at": {"clean": {"low": "x", "high": 1}}}, "against": {}},
        {"recall_at_1": {}, "against": {"standard": {"at": {"clean": {"difference": None}}}}},
        {"recall_at_1": {}, "against": []},
    ],
)
def test_another_file_is_refused_in_one_line(tmp_path: Path, content: dict[str, Any]) -> None:
    path = tmp_path / "intervals.json"
    path.write_text(sealed_json(content))
    with pytest.raises(ResultError, match=r"json does not hold the intervals of a report: run `dvc repro`$"):
        load_intervals(path, SUMMARY)


def test_what_is_not_known_does_not_differ() -> None:
    assert INTERVALS.differs("mdprop", "single_target_middle")
    assert not INTERVALS.differs("mdprop", "clean")
    assert not INTERVALS.differs("at", "clean")
    assert UNKNOWN.of("at", "clean") is None
