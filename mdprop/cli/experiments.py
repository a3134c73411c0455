"""Experiments, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mdprop.cli.app import app, width
from mdprop.errors import ParameterError


@app.command()
def compare(
    revisions: Annotated[
        list[str] | None,
        typer.Argument(help="Experiments, commits, branches or 'workspace'; the others against the first."),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="HEAD and each experiment that started from it, as a queue does.")
    ] = False,
    csv: Annotated[Path | None, typer.Option(help="A file for all numbers.")] = None,
    html: Annotated[Path | None, typer.Option(help="A file for a page with table and plots.")] = None,
) -> None:
    """Compare experiments: what differs in their parameters, and Recall@1 with paired intervals."""
    from mdprop.experiments.choice import all_experiments, named_experiments
    from mdprop.experiments.comparison import compare_experiments
    from mdprop.experiments.tables import comparison_csv, comparison_table
    from mdprop.files import write_files

    if every == bool(revisions):
        raise ParameterError("compare: name two revisions or more, such as HEAD four-targets, or give --all")
    found, left_out = (named_experiments(revisions), []) if revisions else all_experiments()
    for note in left_out:
        print(f"note: {note}")
    compared = compare_experiments(found)
    print(comparison_table(compared, width()))
    texts = {csv: comparison_csv(compared)} if csv else {}
    if html:
        from mdprop.experiments.page import comparison_page

        texts[html] = comparison_page(compared)
    write_files(texts)
    for path in texts:
        print(f"wrote {path}")
