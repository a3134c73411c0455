"""The few numbers that DVC shows: `dvc metrics`, `dvc exp show`."""

from __future__ import annotations

import json

from mdprop.branches import CLEAN
from mdprop.report.aggregate import Summary
from mdprop.report.comparisons import HEADLINE, mean_of
from mdprop.runs import WORST_CASE

SHOWN = {
    HEADLINE: (CLEAN, HEADLINE),
    WORST_CASE: (WORST_CASE, HEADLINE),
    "map_at_r": (CLEAN, "map_at_r"),
}
"""What stands under which name: the input set and the metric of metrics.json."""


def headline_json(summary: Summary) -> str:
    """report/summary.json: {row: {"recall_at_1", "worst_case", "map_at_r"}}, means over seeds.

    recall_at_1 and map_at_r are of clean images, worst_case is the Recall@1 under all attacks. What is
    missing or undefined is left out.
    """
    shown = {
        row: {name: mean for name, at in SHOWN.items() if (mean := mean_of(summary, row, *at)) is not None}
        for row in summary
    }
    return json.dumps(shown, indent=2, allow_nan=False) + "\n"
