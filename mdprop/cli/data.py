"""Prepared data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mdprop.cli.app import app


@app.command()
def duplicates(
    prepared: Annotated[Path, typer.Argument(help="A prepared data set, such as data/prepared/folder.")],
    distance: Annotated[int, typer.Option(help="Bits of 64 in which two hashes may differ, 0 to 16.")] = 4,
) -> None:
    """List images that look alike to a perceptual hash (needs imagehash), those in two splits first."""
    from mdprop.data.near import near_duplicates

    pairs = near_duplicates(prepared, distance)
    across = sum(pair.is_across for pair in pairs)
    for pair in pairs:
        print(pair)
    print(f"{across} pair(s) across splits and {len(pairs) - across} within one, of {distance} bits or fewer")
