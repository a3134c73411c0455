"""The `mdprop` command itself, which the other files of this folder add their commands to."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    help="Deep metric learning with multiple batch norms: settings, results and models.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

PARAMS = Path("params.yaml")


def _version(asked: bool) -> None:
    if asked:
        import mdprop

        print(f"mdprop {mdprop.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version and leave.")
    ] = False,
) -> None:
    """What stands before the name of a command."""


def width() -> int:
    """Of a table: the terminal's, 100 at most."""
    return min(100, shutil.get_terminal_size((100, 24)).columns)
