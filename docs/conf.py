"""The site of the guides and of the public names, by Sphinx: `sphinx-build -W docs build/site`."""

from __future__ import annotations

import re
from pathlib import Path

import mdprop

HERE = Path(__file__).parent

project = "mdprop"
author = "The mdprop authors"
release = mdprop.__version__
html_title = f"mdprop {release}"
html_theme = "furo"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinxcontrib.mermaid"]
exclude_patterns = ["conf.py"]
suppress_warnings = ["myst.header"]  # a guide may begin with small headings
default_role = "code"
html_copy_source = False

myst_heading_anchors = 4
myst_fence_as_directive = ["mermaid"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
python_maximum_signature_line_length = 100

ARGUMENT = re.compile(r"(\w[\w, ]*): (?=\S)")


def as_list(app: object, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Our docstrings' `name: text`, with an indented rest, as items of a list."""
    found: list[str] = []
    for line in lines:
        if match := ARGUMENT.match(line):
            found += ["", f"- **{match[1]}**: {line[match.end() :]}"]
        elif line.startswith("    ") and found and found[-1].startswith(("- **", "  ")):
            found.append(f"  {line.strip()}")
        elif line.startswith("  ") or not line:
            found.append(line)
        else:
            found += [""] * bool(found and found[-1].startswith(("- **", "  "))) + [line]
    lines[:] = found


LINK = re.compile(r"\[([^\]]+)\]\((\.\./[^)#\s]+)(?:#[^)\s]*)?\)")


def as_text(app: object, name: str, content: list[str]) -> None:
    """Links to folders and texts of the repository, which the site has not; files it offers to download."""

    def shown(link: re.Match[str]) -> str:
        path = HERE / link[2]
        return link[1] if path.is_dir() or (path.is_file() and path.suffix == ".md") else link[0]

    content[0] = LINK.sub(shown, content[0])


def setup(app: object) -> None:
    app.connect("source-read", as_text)  # type: ignore[attr-defined]
    app.connect("autodoc-process-docstring", as_list)  # type: ignore[attr-defined]
