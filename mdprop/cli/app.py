"""The `mdprop` command itself, which the other files of this folder add their commands to."""

from __future__ import annotations

import shutil
from pathlib import Path

import typer

app = typer.Typer(
    help="Deep metric learning with multiple batch norms: settings, results and models.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

PARAMS = Path("params.yaml")


def width() -> int:
    """Of a table: the terminal's, 100 at most."""
    return min(100, shutil.get_terminal_size((100, 24)).columns)
