"""The tables and plots of studies in documents: written between two comments, and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from mdprop.errors import ParameterError
from mdprop.files import write_files
from mdprop.study.plan import Study, read_study
from mdprop.study.plots import plot
from mdprop.study.tables import table

_BLOCK = re.compile(r"(<!-- study: ([\w.-]+)/([\w.-]+) -->\n).*?(<!-- end of study -->)", re.DOTALL)


def render(documents: Iterable[Path], studies: Path) -> dict[Path, str]:
    """What the documents, and the plots that they show, would be: path -> content.

    A block `<!-- study: <study>/<table> -->` to `<!-- end of study -->` holds that table of
    studies/<study>/study.yaml, or shows that plot, which is written to docs/images.
    Raises `ParameterError` for a block that names neither.
    """
    known: dict[str, Study] = {}
    files: dict[Path, str] = {}
    for document in documents:

        def block(found: re.Match[str], document: Path = document) -> str:
            start, name, what, end = found.groups()
            if name not in known:
                known[name] = read_study(studies / name / "study.yaml")
            study, folder = known[name], studies / name
            if what in study.tables:
                return f"{start}\n{table(study, folder, what)}\n{end}"
            if what not in study.plots:
                raise ParameterError(f"{document}: {folder}/study.yaml has no table or plot '{what}'")
            image = studies.parent / "docs" / "images" / f"{name}-{what}.svg"
            files[image], words = plot(study, folder, what)
            place = image.relative_to(studies.parent)
            shown = place if document.parent == studies.parent else place.relative_to("docs")
            return f"{start}\n![{words}]({shown})\n\n{end}"

        files[document] = _BLOCK.sub(block, document.read_text(encoding="utf-8"))
    return files


def write(documents: Iterable[Path], studies: Path) -> list[Path]:
    """Write what `render` finds; the files that changed."""
    files = render(documents, studies)
    changed = [p for p, text in files.items() if not p.exists() or p.read_text(encoding="utf-8") != text]
    write_files({path: files[path] for path in changed})
    return changed
