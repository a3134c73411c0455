from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mdprop.data.stores.queries import read_queries, write_queries
from mdprop.errors import ParameterError, ResultError
from mdprop.files import sealed_json
from mdprop.report.intervals import read_hits
from mdprop.runs import Run
from mdprop.statistics import difference_of_seeds, mean_of_seeds, ratio_of_seeds, share_of_queries
from mdprop.study.documents import render, write
from mdprop.study.plan import Study, Unit, read_study, units
from mdprop.study.rows import rows_of
from mdprop.study.stored import describe, state, store, stored_run
from mdprop.study.tables import table
from tests.helpers import PROJECT

PROVENANCE = {"commit": "abc", "torch": "2.14", "mdprop": "0.3.0", "python": "3.11", "device": "cpu"}
YAML = """
about: x
runs:
  a: {methods: [standard, mdprop], seeds: [0, 1, 2]}
  sweep: {methods: [mdprop], seeds: [0], grid: {attack.targets: [1, 5]}}
tables:
  claims:
    rows: {plain: a/standard, ours: a/mdprop, "ours, multi": a/mdprop@multi_target}
    columns: {clean: clean, attacked: single, density: clean.density_ratio}
    against: plain
    attacked: ratio
  sweep:
    rows: {"T: *": sweep/*/mdprop}
    columns: {clean: clean}
plots:
  pareto: {title: Both, attacked: single, curves: {ours: {clean: a/mdprop, multi: a/mdprop@multi_target}}}
"""


def finished(root: Path, unit: Unit, first_id: int = 100) -> Run:
    """What the pipeline leaves of a run: 40 queries of 8 classes, clean ones and 10 attacked ones."""
    rng = np.random.default_rng([unit.seed, len(unit.method), len(unit.point)])
    run = Run(unit.method, unit.seed, root)
    parts = []
    for branch in ("clean", "multi_target")[: 1 + (unit.method == "mdprop")]:
        for name, rows in (("clean", np.arange(40)), ("single", np.arange(0, 40, 4))):
            columns: dict[str, Any] = {
                "set": np.full(len(rows), name),
                "branch": np.full(len(rows), branch),
                "id": rows + first_id,
                "label": rows // 5,
                "hit": rng.random(len(rows)) < 0.6,
                "moved": rng.random(len(rows)),
            }
            parts.append(columns)
    write_queries(run.queries, parts)
    metrics = {
        "clean": {"density_ratio": 0.4 + rng.random() / 10},
        "clean@multi_target": {"density_ratio": 0.5},
    }
    run.metrics.write_text(sealed_json(metrics))
    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "studies" / "s"
    path.mkdir(parents=True)
    (path / "study.yaml").write_text(YAML)
    for number, unit in enumerate(units(read_study(path / "study.yaml"))):
        made = finished(tmp_path / f"runs{number}", unit)
        description = {
            "settings": {"train.epochs": 8},
            "provenance": PROVENANCE,
            "processor": "P",
            "threads": 1,
        }
        store(made, stored_run(path, unit), description)
    return path


@pytest.fixture
def study(folder: Path) -> Study:
    return read_study(folder / "study.yaml")


def test_hits_are_kept_and_queries_are_numbered_by_their_place(tmp_path: Path) -> None:
    """Ids count the training images too: what is trained on must not decide which queries are paired."""
    unit = Unit("a", (), "mdprop", 0)
    all_of_it = finished(tmp_path / "all", unit, first_id=100)
    half = finished(tmp_path / "half", unit, first_id=60)
    for run, name in ((all_of_it, "x"), (half, "y")):
        store(run, Run("mdprop", 0, tmp_path / name), {"settings": {}})
    kept = [read_hits([Run("mdprop", 0, tmp_path / name)]) for name in "xy"]
    original = read_hits([all_of_it])
    for row, sets in original.items():
        for name, seeds in sets.items():
            for found in (k[row][name][0] for k in kept):
                np.testing.assert_array_equal(found.hits, seeds[0].hits)
                np.testing.assert_array_equal(found.labels, seeds[0].labels)
                np.testing.assert_array_equal(found.ids, seeds[0].ids - 100)
    assert "moved" not in read_queries(Run("mdprop", 0, tmp_path / "x").queries).schema.names


def test_a_run_is_done_while_its_settings_are_the_same(folder: Path, study: Study) -> None:
    run = stored_run(folder, next(units(study)))
    assert state(run, {"train.epochs": 8}) == "done"
    assert state(run, {"train.epochs": 8, "train.new": 1}) == "done"
    assert state(run, {"train.epochs": 9}) == "train.epochs: 8 -> 9"
    assert state(Run("standard", 7, run.root), {}) == "missing"


def test_a_description_that_was_damaged_is_refused(folder: Path, study: Study) -> None:
    run = stored_run(folder, next(units(study)))
    path = run.folder / "run.json"
    path.write_text(path.read_text().replace("8", "9", 1))
    with pytest.raises(ResultError, match=r"run\.json"):
        describe(run)


def test_a_metric_that_was_damaged_is_refused(folder: Path, study: Study) -> None:
    row = next(iter(rows_of(study, folder, study.tables["claims"].rows).values()))
    file = row.runs[0].metrics
    file.write_text(file.read_text().replace("0.4", "0.5", 1))
    with pytest.raises(ResultError, match=r"metrics\.json is damaged"):
        row.metric("clean", "density_ratio")


def test_cells_are_those_of_the_statistics(folder: Path, study: Study) -> None:
    rows = rows_of(study, folder, study.tables["claims"].rows)
    hits = {label: row.hits(study.tables["claims"].columns.values()) for label, row in rows.items()}
    clean = {label: [100 * h.hits.mean() for h in sets["clean"].values()] for label, sets in hits.items()}
    lines = {line.split(" | ")[0]: line for line in table(study, folder, "claims").splitlines()}
    mean = mean_of_seeds(np.array(clean["ours"]) / 100, 0, 1)
    difference = difference_of_seeds(np.array(clean["ours"]) / 100, np.array(clean["plain"]) / 100)
    assert mean and difference
    assert f"{100 * mean.value:.1f} ({100 * mean.low:.1f}–{100 * mean.high:.1f})" in lines["| ours"]
    assert f"<br>{100 * difference.value:+.1f}" in lines["| ours"]
    attacked = [[h.hits.mean() for h in hits[label]["single"].values()] for label in ("ours", "plain")]
    ratio = ratio_of_seeds(*map(np.array, attacked))
    assert ratio and f"×{ratio.value:.2f}" in lines["| ours"]
    assert "<br>" not in lines["| plain"]
    densities = list(rows["ours, multi"].metric("clean", "density_ratio").values())
    assert densities == [0.5, 0.5, 0.5] and "0.500" in lines["| ours, multi"]


def test_rows_of_another_study_and_a_reference_for_each_row(folder: Path, study: Study) -> None:
    other = folder.with_name("all")
    other.mkdir()
    (other / "study.yaml").write_text("""
about: y
runs: {}
tables:
  claims:
    rows: {a: "s:a/standard", b: "s:a/mdprop", "T *": "s:sweep/*/mdprop"}
    columns: {clean: clean, density: clean.density_ratio}
    against: {b: a}
""")
    lines = table(read_study(other / "study.yaml"), other, "claims").splitlines()
    theirs = table(study, folder, "claims").splitlines()
    assert [line.partition(" | ")[0] for line in lines[2:6]] == [
        "| a",
        "| b",
        "| T targets 1",
        "| T targets 5",
    ]
    assert lines[3].split(" | ")[1] == theirs[3].split(" | ")[1]
    assert "<br>" in lines[3] and not any("<br>" in line for line in (lines[2], *lines[4:]))
    assert "`mdprop study run s`" in lines[-1] and "`mdprop study run all`" not in lines[-1]


def test_the_worst_case_of_several_input_sets(folder: Path, study: Study) -> None:
    row = rows_of(study, folder, {"x": "a/mdprop"})["x"]
    found = row.hits(["clean", "single", "clean & single"])
    for seed, worst in found["clean & single"].items():
        clean = dict(zip(found["clean"][seed].ids, found["clean"][seed].hits, strict=True))
        single = found["single"][seed]
        np.testing.assert_array_equal(worst.ids, single.ids)
        np.testing.assert_array_equal(worst.labels, single.labels)
        expected = [hit and clean[i] for i, hit in zip(single.ids, single.hits, strict=True)]
        np.testing.assert_array_equal(worst.hits, expected)
    assert row.hits(["clean & none"]) == {}


def test_where_the_numbers_are_from(folder: Path, study: Study) -> None:
    assert (
        table(study, folder, "claims")
        .rstrip()
        .endswith("Seeds 0, 1, 2; `mdprop study run s`; commit abc; one thread of P, torch 2.14.")
    )


def test_seeds_are_counted_where_rows_have_different_ones(folder: Path, study: Study) -> None:
    assert "| seeds |" not in table(study, folder, "claims")
    (folder / "results" / "a" / "mdprop" / "2" / "run.json").unlink()
    titles, _, plain, ours, multi, _, source, *_ = table(study, folder, "claims").split("\n")
    assert titles.endswith("| density | seeds |")
    assert [line.rsplit("| ", 1)[1] for line in (plain, ours, multi)] == ["3 |", "2 |", "2 |"]
    assert source.startswith("Seeds 0, 1, 2, not all in every row; ")


def test_a_row_for_each_point_of_a_grid(folder: Path, study: Study) -> None:
    lines = table(study, folder, "sweep").splitlines()
    assert [line.split(" | ")[0] for line in lines[2:4]] == ["| T: targets 1", "| T: targets 5"]
    hits = rows_of(study, folder, study.tables["sweep"].rows)["T: targets 1"].hits(["clean"])["clean"][0]
    assert f"{100 * share_of_queries(hits.hits, hits.labels).value:.1f} (" in lines[2]


def test_rows_that_the_study_does_not_make(folder: Path, study: Study) -> None:
    with pytest.raises(ParameterError, match=r"study\.yaml: 'a/at' is no <group>/<method>"):
        rows_of(study, folder, {"at": "a/at"})


def test_documents_are_written_between_their_comments_only(folder: Path, study: Study) -> None:
    root = folder.parents[1]
    (root / "docs").mkdir()
    blocks = [f"<!-- study: s/{name} -->\nold\n<!-- end of study -->\n" for name in ("claims", "pareto")]
    document = root / "docs" / "results.md"
    document.write_text("# R\n\n" + "kept\n".join(blocks))
    changed = write([document], root / "studies")
    text = document.read_text()
    assert {path.name for path in changed} == {"results.md", "s-pareto.svg"}
    assert text.startswith("# R\n\n<!-- study: s/claims -->\n\n| | clean | attacked | density |\n")
    assert "\nkept\n" in text and "old" not in text and "](images/s-pareto.svg)" in text
    assert write([document], root / "studies") == []


def test_cells_in_a_sentence_are_those_of_the_table(folder: Path, study: Study) -> None:
    document = folder.parents[1] / "a.md"
    first, second = (f"<!-- cell: s/claims; {row}; attacked -->old<!-- -->" for row in ("ours", "plain"))
    document.write_text(f"| gains {first} on | {second} |")
    text = render([document], folder.parent)[document]
    shown = (line.strip("| ").split(" | ") for line in table(study, folder, "claims").splitlines()[2:])
    lines = {line[0]: line for line in shown}
    assert f"attacked -->{lines['ours'][2].split('<br>')[1]}<!-- --> on |" in text
    assert f"attacked -->{lines['plain'][2]}<!-- --> |" in text
    document.write_text("<!-- cell: s/claims; theirs; attacked --><!-- -->")
    with pytest.raises(
        ParameterError, match=r"a\.md: .*table 'claims', has no results of 'theirs' in a column 'att"
    ):
        render([document], folder.parent)


def test_a_block_that_the_study_has_not(folder: Path) -> None:
    document = folder.parents[1] / "a.md"
    document.write_text("<!-- study: s/none -->\n<!-- end of study -->")
    with pytest.raises(ParameterError, match=r"a\.md: .*s/study\.yaml has no table or plot 'none'"):
        render([document], folder.parent)


def test_documents_say_what_is_stored() -> None:
    """Every table and plot of a study in the documents is the one that its stored results give."""
    documents = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
    for path, content in render(documents, PROJECT / "studies").items():
        assert path.read_text(encoding="utf-8") == content, f"{path}: run `mdprop study docs`"
