"""A trained model at work: folders of images, and one image against it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mdprop.cli.app import app

ModelArgument = Annotated[Path, typer.Argument(help="The folder of a trained model, such as runs/mdprop/0.")]
BranchOption = Annotated[
    str, typer.Option(help="The batch-norm branch that answers, or a mixture: 'clean+25%multi_target'.")
]


@app.command()
def index(
    model: ModelArgument,
    images: Annotated[Path, typer.Argument(help="The folder of images, with folders below it or without.")],
    out: Annotated[Path, typer.Option(help="The folder to write the index to.")],
    branch: BranchOption = "clean",
    skip: Annotated[bool, typer.Option("--skip", help="Leave out images that cannot be used.")] = False,
) -> None:
    """Embed a folder of images, for `mdprop search`."""
    from mdprop.deploy import ImageIndex, Trained, build_index

    for problem in build_index(Trained.at(model, branch), images, out, skip=skip):
        print(f"note: left out: {problem}", file=sys.stderr)
    print(f"wrote {out}: {len(ImageIndex.read(out)):,} images")


@app.command()
def search(
    index: Annotated[Path, typer.Argument(help="What `mdprop index` wrote.")],
    queries: Annotated[Path, typer.Argument(help="An image, or a folder of images.")],
    k: Annotated[int, typer.Option("-k", min=1, help="Neighbours of each query.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of a table.")] = False,
    html: Annotated[
        Path | None, typer.Option(help="Write the pictures to this file, too, which needs no other.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="The model that made the index, where its folder was moved.")
    ] = None,
    branch: Annotated[
        str | None, typer.Option(help="The branch that you count on: an index of another one is refused.")
    ] = None,
) -> None:
    """Find the images of an index that are nearest to an image, or to each of a folder."""
    import json

    from mdprop import deploy
    from mdprop.deploy.grid import grid
    from mdprop.deploy.search import as_record, as_table
    from mdprop.files import write_files

    searched = deploy.ImageIndex.read(index)
    answers = deploy.search(searched, queries, k, model=model, branch=branch)
    print(json.dumps(as_record(searched, answers), indent=2) if as_json else as_table(answers))
    if html is not None:
        write_files({html: grid(searched, answers)})
        print(f"wrote {html}", file=sys.stderr)


@app.command()
def attack(
    model: ModelArgument,
    image: Annotated[Path, typer.Argument(help="The image to move.")],
    target: Annotated[Path, typer.Argument(help="The image that it is to come near to.")],
    out: Annotated[Path, typer.Option(help="The .png file to write.")],
    epsilon: Annotated[str, typer.Option(help="The largest change of a pixel in [0, 1].")] = "4/255",
    steps: Annotated[int, typer.Option(help="Gradient steps of the attack (APGD).")] = 50,
    branch: BranchOption = "clean",
) -> None:
    """Move one image towards another in the embedding space, and say how far it came."""
    from mdprop.deploy import Trained, attack_image

    moved = attack_image(Trained.at(model, branch), image, target, out, epsilon=epsilon, steps=steps)
    print(moved)
    print(f"wrote {out}")
