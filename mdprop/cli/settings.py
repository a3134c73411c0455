"""Settings by name."""

from __future__ import annotations

from typing import Annotated

import typer

from mdprop.cli.app import PARAMS, app


@app.command()
def preset(
    names: Annotated[
        list[str] | None, typer.Argument(help="Presets, a later one over an earlier one.")
    ] = None,
) -> None:
    """Write settings by name into params.yaml; without a name, list them."""
    from mdprop.presets import apply_presets, read_presets

    known = read_presets()
    if not names:
        print("\n".join(known))
        return
    changed = apply_presets(PARAMS, known, names)
    print(f"{PARAMS}: {len(changed)} value(s) changed; `git restore {PARAMS}` takes them back")
