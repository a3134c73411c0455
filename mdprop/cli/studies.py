"""Studies: many runs from one file, and the tables of the documents."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mdprop.cli.app import PARAMS, app

STUDIES = Path("studies")

study = typer.Typer(help="Run studies, and write their tables into the documents.", no_args_is_help=True)
app.add_typer(study, name="study")


@study.command()
def run(
    name: Annotated[str, typer.Argument(help="A folder of studies/.")],
    groups: Annotated[list[str] | None, typer.Argument(help="Its runs to make; all by default.")] = None,
    jobs: Annotated[int, typer.Option(min=1, max=256, help="Runs at a time, each on one thread.")] = 1,
    dry: Annotated[bool, typer.Option("--dry", help="List what is missing, and make nothing.")] = False,
) -> None:
    """Make the runs of a study that are missing; interrupted, the same command goes on."""
    from mdprop.study.plan import read_study
    from mdprop.study.runner import make, missing

    folder = STUDIES / name
    tasks = list(missing(read_study(folder / "study.yaml"), folder, PARAMS, groups or [], print))
    if dry:
        for task in tasks:
            print(task.unit)
    print(f"{folder}: {len(tasks)} run(s) are missing")
    if tasks and not dry:
        import dvc  # noqa: F401  # not installed, it is missed here and not by a run

        make(tasks, folder, Path.cwd(), jobs, lambda line: print(line, flush=True))


@study.command()
def docs() -> None:
    """Write every table and plot of studies in README.md and docs/ from the stored results."""
    from mdprop.study.documents import write

    changed = write([Path("README.md"), *sorted(Path("docs").glob("*.md"))], STUDIES)
    print("\n".join(f"wrote {path}" for path in changed) or "all documents are up to date")
