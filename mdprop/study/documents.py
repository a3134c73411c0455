"""The tables and plots of studies in documents: written between two comments, and nowhere else."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from mdprop.errors import ParameterError
from mdprop.files import write_files
from mdprop.study.plan import Study, read_study
from mdprop.study.plots import plot
from mdprop.study.tables import Cell, cells, table

_BLOCK = re.compile(r"(<!-- study: ([\w.-]+)/([\w.-]+) -->\n).*?(<!-- end of study -->)", re.DOTALL)
_CELL = re.compile(r"(<!-- cell: ([\w.-]+)/([\w.-]+); ([^;\n]+?); ([^;\n]+?) -->).*?(<!-- -->)")


def render(documents: Iterable[Path], studies: Path) -> dict[Path, str]:
    """What the documents, and the plots that they show, would be: path -> content.

    A block `<!-- study: <study>/<table> -->` to `<!-- end of study -->` holds that table of
    studies/<study>/study.yaml, or shows that plot, which is written to docs/images. In a sentence,
    `<!-- cell: <study>/<table>; <row>; <column> -->` to `<!-- -->` holds one cell: how it differs
    from its reference, or its value where it has none.
    Raises `ParameterError` for what is not there.
    """
    files: dict[Path, str] = {}

    @functools.cache
    def known(name: str) -> Study:
        return read_study(studies / name / "study.yaml")

    @functools.cache
    def cells_of(name: str, what: str) -> Mapping[str, Mapping[str, Cell]]:
        return cells(known(name), studies / name, what) if what in known(name).tables else {}

    for document in documents:

        def block(found: re.Match[str], document: Path = document) -> str:
            start, name, what, end = found.groups()
            study, folder = known(name), studies / name
            if what in study.tables:
                return f"{start}\n{table(study, folder, what)}\n{end}"
            if what not in study.plots:
                raise ParameterError(f"{document}: {folder}/study.yaml has no table or plot '{what}'")
            image = studies.parent / "docs" / "images" / f"{name}-{what}.svg"
            files[image], words = plot(study, folder, what)
            place = image.relative_to(studies.parent)
            shown = place if document.parent == studies.parent else place.relative_to("docs")
            return f"{start}\n![{words}]({shown})\n\n{end}"

        def cell(found: re.Match[str], document: Path = document) -> str:
            start, name, what, row, column, end = found.groups()
            value = cells_of(name, what).get(row, {}).get(column)
            if value is None:
                place = f"{studies / name}/study.yaml, table '{what}'"
                raise ParameterError(f"{document}: {place}, has no results of '{row}' in a column '{column}'")
            return f"{start}{value.compared or value.value}{end}"

        files[document] = _CELL.sub(cell, _BLOCK.sub(block, document.read_text(encoding="utf-8")))
    return files


def write(documents: Iterable[Path], studies: Path) -> list[Path]:
    """Write what `render` finds; the files that changed."""
    files = render(documents, studies)
    changed = [p for p, text in files.items() if not p.exists() or p.read_text(encoding="utf-8") != text]
    write_files({path: files[path] for path in changed})
    return changed
