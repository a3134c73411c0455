"""Pages from templates: what all of them have in common."""

from __future__ import annotations

import re
from urllib.parse import quote

import jinja2
from markupsafe import Markup, escape


def template(name: str, package: str) -> jinja2.Template:
    """A page of `package`, which may also include what lies in the report's own templates.

    Values are escaped, one that is missing is an error. Filters: `breakable`, `download`, `slug`.
    """
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(p) for p in (package, "mdprop.report")]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"breakable": _breakable, "download": _download, "slug": _slug}
    return environment.get_template(name)


def _breakable(name: str) -> Markup:
    """A name that may go on in a new line before @ and + and after _ and dots."""
    return Markup(re.sub(r"(?=[@+])|(?<=[_.])", "<wbr>", str(escape(name))))


def _download(text: str) -> str:
    """A data URI that a browser saves as a CSV file."""
    return "data:text/csv;charset=utf-8," + quote(text)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
