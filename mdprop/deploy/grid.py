"""Answers of a search as one HTML file with all of its pictures."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image

from mdprop.data.images import ImageError, open_image, to_mode
from mdprop.data.readers.entries import as_text
from mdprop.deploy.index import ImageIndex
from mdprop.deploy.search import Answer

SIDE = 160
"""Of a picture, at most, in pixels."""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 1rem/1.4 system-ui, sans-serif; }}
body {{ margin: 1rem; }}
h1 {{ font-size: 1.3rem; }}
h2 {{ font-size: 1rem; overflow-wrap: anywhere; }}
.row {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); gap: .75rem; }}
figure {{ margin: 0; }}
figure.query {{ outline: 3px solid currentColor; outline-offset: 3px; }}
img, .gone {{ width: 100%; aspect-ratio: 1; object-fit: contain; background: #8882; }}
figcaption {{ font-size: .8rem; overflow-wrap: anywhere; }}
</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p>{made}</p>
{sections}
</main>
</body>
</html>
"""


def grid(index: ImageIndex, answers: Sequence[Answer]) -> str:
    """A row a query: itself, framed, and its neighbours with rank and cosine; every picture has a text.

    The file needs no other and no network. A picture whose file has gone is an empty frame that says so.
    """
    picture = functools.cache(_picture)
    sections = []
    for answer in answers:
        name = escape(as_text(answer.name))
        shown = [_figure(picture(answer.file), f"query {name}", f"query: {name}", "query")]
        for rank, near in enumerate(answer.neighbours, 1):
            text = f"{escape(as_text(near.name))}, cosine {near.cosine:.3f}"
            shown.append(
                _figure(picture(index.images / near.name), f"neighbour {rank}: {text}", f"{rank}. {text}")
            )
        sections.append(f'<section>\n<h2>{name}</h2>\n<div class="row">\n{"".join(shown)}</div>\n</section>')
    folder = escape(as_text(index.images.name))
    made = f"{len(index):,} images, embedded by {index.maker['folder']} through {index.maker['branch']}"
    return _PAGE.format(title=f"Nearest in {folder}", made=escape(made), sections="\n".join(sections))


def _figure(picture: str | None, text: str, caption: str, kind: str = "neighbour") -> str:
    shown = f'<img alt="{text}" src="{picture}">' if picture else '<div class="gone">no longer there</div>'
    return f'<figure class="{kind}">{shown}<figcaption>{caption}</figcaption></figure>\n'


def _picture(file: Path) -> str | None:
    """A small JPEG as a data URI; None for what can no longer be read."""
    try:
        image = to_mode(open_image(file), "RGB")
    except ImageError:
        return None
    image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode()
