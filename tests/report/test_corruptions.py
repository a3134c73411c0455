from __future__ import annotations

import csv
import io

from mdprop.attacks import Threat
from mdprop.report.aggregate import Stat, Summary
from mdprop.report.comparisons import MISSING
from mdprop.report.corruptions import corruption_table
from mdprop.report.csvs import table_csv
from mdprop.report.sets import corrupted_sets, input_sets
from mdprop.report.terminal import terminal_table

THREATS = {"jpeg_1": Threat(goal="untargeted", epsilon=0.1)}  # a name that is free where it is no corruption
RECALL = {"clean": 0.9, "jpeg_1": 0.1, "fog_1": 0.8, "fog_5": 0.4, "shot_noise_3": 0.5, "corruptions": 0.57}


def summary_of(**rows: dict[str, float]) -> Summary:
    return {
        row: {name: {"recall_at_1": Stat(mean=value, std=0.0, n=1)} for name, value in values.items()}
        for row, values in rows.items()
    }


def test_corruptions_have_a_table_of_their_own() -> None:
    less = {name: value for name, value in RECALL.items() if name != "fog_5"}
    table = corruption_table(summary_of(standard=RECALL, at=less), THREATS)
    assert table is not None
    assert list(table.heads) == ["mean", "shot noise", "fog"]
    assert list(table.groups) == [("all", 1), ("noise", 1), ("weather", 1)]
    texts = {name: [(cell.text, cell.below) for cell in cells] for name, cells in table.rows}
    assert texts["standard"] == [("57.0", ()), ("50.0", ("50.0",)), ("60.0", ("80.0 / 40.0",))]
    assert texts["at"][2] == (MISSING, ())


def test_without_corruptions_there_is_none() -> None:
    assert corruption_table(summary_of(standard={"clean": 0.9, "jpeg_1": 0.1}), THREATS) is None


def test_other_tables_show_their_mean_only() -> None:
    summary = summary_of(standard=RECALL)
    assert [s.name for s in input_sets(summary, THREATS)] == ["clean", "jpeg_1", "corruptions"]
    assert list(corrupted_sets(summary, THREATS)) == ["fog_1", "fog_5", "shot_noise_3"]
    text = terminal_table(summary, THREATS)
    assert "57.0" in text and "Corruptions: the mean over kinds and severities; no attack." in text
    assert "fog" not in text


def test_the_csv_has_each() -> None:
    rows = csv.DictReader(io.StringIO(table_csv(summary_of(standard=RECALL), THREATS)))
    found = {row["input_set"]: float(row["mean"]) for row in rows}
    assert found == RECALL
