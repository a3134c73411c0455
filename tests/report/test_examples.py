"""Which queries the page shows, and what it draws of them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from mdprop.data.stores.examples import read_examples, write_examples
from mdprop.errors import ResultError
from mdprop.files import sealed_json
from mdprop.report.examples import choose, read_all
from mdprop.report.planes import plane_plots
from mdprop.runs import Run
from tests.report.synthetic import make_examples

BOTH = {"standard": make_examples("standard"), "mdprop": make_examples("mdprop")}


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    examples = make_examples("at")
    write_examples(tmp_path / "examples.json", examples)
    assert read_examples(tmp_path / "examples.json") == examples
    first = (tmp_path / "examples.json").read_bytes()
    write_examples(tmp_path / "examples.json", examples)
    assert (tmp_path / "examples.json").read_bytes() == first


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "has no seal"),
        (sealed_json({}), r"holds no examples of this version \(branch: Field required\)"),
        (sealed_json({**json.loads(make_examples("at").model_dump_json()), "kind": "gif"}), r"\(kind: "),
    ],
)
def test_another_file_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "examples.json"
    path.write_text(content)
    with pytest.raises(ResultError, match=rf"examples\.json .*{message}.*delete it and run `dvc repro`"):
        read_examples(path)


def test_the_first_seed_of_each_method_is_shown(folder: Path) -> None:
    for run, branch in ((Run("at", 3), "clean"), (Run("at", 4), "clean"), (Run("mdprop", 0), "far")):
        run.folder.mkdir(parents=True)
        write_examples(
            run.examples, make_examples(run.method, run.seed).model_copy(update={"branch": branch})
        )
    found = read_all([Run("at", 3), Run("at", 4), Run("mdprop", 0)])
    assert list(found) == ["at", "mdprop@far"]
    assert found["at"] == make_examples("at", 3)


def test_queries_are_chosen_by_the_rules_that_the_page_states() -> None:
    """In `make_examples` query i is found at rank i + 1 under attack, but by mdprop at 1 where i is odd."""
    grid = choose(BOTH)
    assert grid is not None
    assert grid.rows == ("standard", "mdprop")
    shown = {case.title: [line.state for line in case.lines] for case in grid.cases}
    states = ["clean, first hit at rank 1", "attacked, first hit at rank {}"]
    expected = {"Typical": (4, 1), "Worst": (7, 7), "Rescued by mdprop": (8, 1)}
    assert shown == {
        title: [state.format(rank) for rank in ranks for state in states] for title, ranks in expected.items()
    }
    assert "by mdprop only: 4 of 8 queries" in grid.cases[2].rule
    assert grid.notes == (
        "Lost by mdprop: none. Found on clean images by standard and mdprop; under attack by standard only: "
        "0 of 8 queries.",
    )


def test_hits_and_misses_are_said_in_words_and_signs() -> None:
    grid = choose(BOTH)
    assert grid is not None
    attacked = grid.cases[0].lines[1]
    assert [picture.verdict for picture in attacked.neighbours] == ["miss", "miss", "miss", "hit", "hit"]
    assert attacked.neighbours[0].caption == "✗ class <0>"
    assert attacked.neighbours[3].alt == "neighbour 4, hit: class class <1>"
    query, change = attacked.asked
    assert (query.caption, change.caption) == ("attacked: class <1>", "change ×5")
    assert change.alt == "its perturbation, amplified 5 times; grey is no change"


def test_one_row_is_shown_alone_and_none_without_an_attack() -> None:
    grid = choose({"mdprop": BOTH["mdprop"]})
    assert grid is not None
    assert [case.title for case in grid.cases] == ["Typical", "Worst"]
    assert all(line.row == "mdprop" for case in grid.cases for line in case.lines)
    assert choose({"mdprop": BOTH["mdprop"].model_copy(update={"input_set": None})}) is None


def test_rows_of_other_attacks_are_not_compared() -> None:
    other = BOTH["mdprop"].model_copy(update={"input_set": "another"})
    grid = choose({"standard": BOTH["standard"], "mdprop": other})
    assert grid is not None
    assert grid.rows == ("standard",)


def test_the_csv_has_every_query_that_was_drawn() -> None:
    grid = choose(BOTH)
    assert grid is not None
    rows = list(csv.DictReader(io.StringIO(grid.csv)))
    assert len(rows) == 2 * 8 * 2 * 5
    assert rows[0] == {
        "row": "standard", "query": "0", "label": "0", "state": "clean", "rank": "1", "place": "1",
        "neighbour": "101", "neighbour_label": "0", "distance": "0.1",
    }  # fmt: skip


def test_the_map_shows_clean_images_and_where_queries_go() -> None:
    first, second = plane_plots(BOTH)
    assert (
        first.note == "0 of 8 attacked queries still hit."
        and second.note == "8 of 8 attacked queries still hit."
    )
    assert "10 clean images of the classes class <0>, class <1>, and the way of 8 queries" in first.alt
    states = [row["state"] for row in csv.DictReader(io.StringIO(first.csv))]
    assert [states.count(state) for state in ("clean", "before", "after")] == [10, 8, 8]
    assert first.svg.startswith("<svg") and "class &lt;0&gt;" in first.svg
    assert plane_plots({"at": BOTH["mdprop"].model_copy(update={"plane": None})}) == []
