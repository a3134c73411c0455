from __future__ import annotations

import math
from typing import Any

import pytest

from mdprop.attacks.threat import Threat
from mdprop.report.aggregate import aggregate
from mdprop.report.confidence import Comparison, Intervals
from mdprop.report.page_inputs import input_table, settings_tables
from mdprop.report.page_tables import (
    Cell,
    against_table,
    embedding_table,
    recall_table,
)
from mdprop.report.sets import input_sets
from mdprop.statistics import Interval
from tests.report.synthetic import THREATS, make_rows, summary_of


def test_colgroups_span_the_columns() -> None:
    summary = aggregate(make_rows())
    table = recall_table(summary, input_sets(summary, THREATS), "recall_at_1", "caption")
    assert table is not None
    assert list(table.groups) == [
        ("clean", 1),
        ("worst case", 1),
        ("single-targeted", 3),
        ("multi-targeted", 3),
        ("untargeted", 1),
        ("unadversarial", 1),
    ]
    assert all(len(cells) == len(table.heads) == 10 for _, cells in table.rows)


INTERVALS = Intervals(
    {"standard": {"clean": Interval(0.8, 0.75, 0.84)}, "mdprop": {"clean": Interval(0.816, 0.77, 0.85)}},
    {
        "standard": {
            "mdprop": {
                "clean": Comparison(Interval(0.016, -0.01, 0.04), None),
                "single_target_middle": Comparison(Interval(0.224, 0.1, 0.3), Interval(2.12, 1.5, math.inf)),
            }
        }
    },
)


def test_recall_has_its_interval_and_a_mark_where_it_differs_beyond_it() -> None:
    summary = summary_of(standard=(0.8, 0.2), mdprop=(0.816, 0.424))
    table = recall_table(summary, input_sets(summary, THREATS), "recall_at_1", "", INTERVALS)
    assert table is not None
    assert dict(table.rows) == {
        "standard": [Cell("80.0", ("75.0–84.0",)), Cell("20.0")],
        "mdprop": [Cell("81.6", ("77.0–85.0",), "+1.6"), Cell("42.4", (), "×2.12*", differs=True)],
    }


def test_other_metrics_have_no_interval() -> None:
    summary = aggregate(make_rows(["standard", "mdprop"]))
    sets = input_sets(summary, THREATS)
    table = recall_table(summary, sets, "recall_at_1_all_adversarial", "", INTERVALS)
    assert table is not None
    assert not any(cell.below or cell.differs for _, cells in table.rows for cell in cells)


def test_comparisons_have_intervals_of_their_own() -> None:
    summary = summary_of(standard=(0.8, 0.2), mdprop=(0.816, 0.424))
    table = against_table(input_sets(summary, THREATS), INTERVALS, "standard")
    assert table is not None
    assert dict(table.rows) == {
        "mdprop": [
            Cell("+1.6", ("-1.0 to +4.0",)),
            Cell("+22.4*", ("+10.0 to +30.0", "×2.12, 1.50–∞"), differs=True),
        ]
    }
    assert list(table.groups) == [("clean", 1), ("single-targeted", 1)]
    assert against_table(input_sets(summary, THREATS), INTERVALS, "at") is None


def test_embedding_table_holds_what_is_there() -> None:
    table = embedding_table(aggregate({"at": {0: {"clean": {"nmi": 0.5, "spectral_decay": 0.1234}}}}))
    assert table is not None
    assert (list(table.heads), list(table.groups)) == (
        ["NMI", "decay"],
        [("retrieval and clusters, %", 1), ("spectrum", 1)],
    )
    assert [cell.text for cell in table.rows[0][1]] == ["50.0", "0.123"]
    assert embedding_table({"at": {"clean": {}}}) is None


def inputs_of(threat: Threat, std: list[float]) -> dict[str, str]:
    summary = aggregate({"at": {0: {"night": {"queries": 500}}}})
    table = input_table(summary, input_sets(summary, {"night": threat}), std)
    assert table.rows[0][0] == "night"
    return dict(zip(table.heads, [cell.text for cell in table.rows[0][1]], strict=True))


@pytest.mark.parametrize(
    ("means", "std", "expected"),
    [
        ({}, [0.25], ["0.1", "25.5", "0.4"]),
        ({}, [0.25, 0.2], ["0.1", "25.5", "0.4 / 0.5"]),
        ({"units": "normalized"}, [0.25, 0.2], ["0.025 / 0.02", "6.38 / 5.1", "0.1"]),
        ({}, [], ["0.1", "25.5", "–"]),
        ({"norm": "l2"}, [0.25, 0.2], ["0.1", "25.5", "–"]),
    ],
)
def test_input_table_states_epsilon_in_every_unit(
    means: dict[str, Any], std: list[float], expected: list[str]
) -> None:
    found = inputs_of(Threat(goal="untargeted", epsilon=0.1, **means), std)
    heads = ["ε in pixels of [0, 1]", "ε in 8-bit levels", "ε in standard deviations"]
    assert [found[head] for head in heads] == expected


def test_input_table_says_how_a_set_is_made() -> None:
    threat = Threat(goal="multi_target", epsilon=0.1, norm="l2", steps=7, restarts=3, step_ratio=0.4)
    found = inputs_of(threat, [0.25])
    shown = {"goal": "multi-targeted", "norm": "ℓ2", "steps": "7", "step ratio": "0.4 ε", "restarts": "3"}
    assert found.items() >= {**shown, "targets": "5", "start noise": "ε", "queries": "500"}.items()
    plain = inputs_of(Threat(goal="single_target", epsilon=0.1, start_noise=0.01), [0.25])
    shown = {"norm": "ℓ∞", "step ratio": "1 / steps", "targets": "–", "start noise": "0.01"}
    assert plain.items() >= shown.items()


def test_input_table_of_clean_and_unknown_sets() -> None:
    summary = aggregate({"at": {0: {"clean": {"queries": 500}, "old": {"recall_at_1": 0.2}}}})
    table = input_table(summary, input_sets(summary, {}), [0.25])
    clean, old = (dict(zip(table.heads, [c.text for c in cells], strict=True)) for _, cells in table.rows)
    assert (clean["ε in pixels of [0, 1]"], clean["steps"], clean["queries"]) == ("0", "–", "500")
    assert set(old.values()) == {"–"}


def test_settings_are_flattened_by_section() -> None:
    tables = settings_tables(
        {"seeds": [0, 1], "loss": {"name": "ms", "options": {"margin": 0.1}}, "empty": {}}
    )
    found = {t.caption: [(key, cells[0].text) for key, cells in t.rows] for t in tables}
    assert found == {"general": [("seeds", "0, 1")], "loss": [("name", "ms"), ("options.margin", "0.1")]}
