"""The tables of docs/losses.md say what the code takes."""

from __future__ import annotations

import re

import pytest

from mdprop.losses import LOSSES, MINERS
from mdprop.losses.library import CLASS_LOSSES, PAIR_LOSSES
from mdprop.losses.options import describe, options_of
from tests.helpers import PROJECT

TEXT = (PROJECT / "docs" / "losses.md").read_text()
OURS = {name: LOSSES[name] for name in LOSSES if name not in PAIR_LOSSES and name not in CLASS_LOSSES}
TABLES = {
    "The paper's losses": OURS,
    "Losses of pairs and triplets": PAIR_LOSSES,
    "Losses with class centres": CLASS_LOSSES,
    "Miners": MINERS,
}


def table(heading: str) -> dict[str, dict[str, str]]:
    """The first table under a heading: name -> column -> cell."""
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    columns, _, *rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {row[0].strip("`"): dict(zip(columns, row, strict=True)) for row in rows}


@pytest.mark.parametrize("heading", TABLES)
def test_a_table_equals_the_code(heading: str) -> None:
    written = table(heading)
    assert list(written) == list(TABLES[heading])
    for name, choice in TABLES[heading].items():
        options = [describe(*option) for option in options_of(choice).items()]
        assert re.findall(r"`([^`]+)`", written[name]["options"]) == options, name
        if heading != "Miners":
            assert written[name]["miner"] == ("yes" if choice.mined else "no"), name


def test_every_option_that_the_units_name_exists() -> None:
    for heading, choices in TABLES.items():
        for name, row in table(heading).items():
            unnamed = {"margins", "weights", "strategies", "ranges"}
            for group in re.findall(r"([\w, ]+):", row["units"]):
                named = {word.strip() for word in group.split(",")} - unnamed
                assert named <= set(options_of(choices[name])), name
