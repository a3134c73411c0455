"""Trained networks: taken away, and measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mdprop.cli.app import PARAMS, app, width


@app.command()
def export(
    model_dir: Annotated[Path, typer.Argument(help="A trained model, such as runs/mdprop/0.")],
    out: Annotated[Path, typer.Argument(help="A .safetensors, .pth, .pt2 or .onnx file.")],
    branch: Annotated[
        str,
        typer.Option(help="The batch-norm branch to keep, or a mixture of two: 'clean+25%multi_target'."),
    ] = "clean",
) -> None:
    """Write one branch, or a mixture of two, as a plain network, once it finds the same neighbours."""
    from mdprop.deploy import export_model

    found = export_model(model_dir, out, branch)
    print(f"wrote {out}, and {out.name}.preprocessing.json beside it")
    print(f"{found.images} generated images have the neighbours that {model_dir} finds for them")


@app.command()
def measure(
    model: Annotated[
        str,
        typer.Argument(
            help="file.py:function or package.module:function that returns a torch module; an exported "
            "program (.pt2, or .pt of TorchScript); a state dict (with --backbone); or the folder of a run."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write the results to.")],
    params: Annotated[Path, typer.Option(help="The parameters: the images and the attacks.")] = PARAMS,
    normalize: Annotated[
        bool,
        typer.Option(
            "--normalize",
            help="Give the network images normalised by the data set's mean and std, not pixels in [0, 1].",
        ),
    ] = False,
    backbone: Annotated[str | None, typer.Option(help="Of a state dict, such as resnet50.")] = None,
    branch: Annotated[str | None, typer.Option(help="The branch of a run that answers.")] = None,
) -> None:
    """Attack a network from anywhere as `adversary` in params.yaml says, and print its table."""
    from mdprop.config import load_params

    p = load_params(params)

    from mdprop.data.loading.transforms import test_transform
    from mdprop.report.aggregate import aggregate, collect
    from mdprop.report.findings import read_findings
    from mdprop.report.intervals import read_intervals
    from mdprop.report.terminal import terminal_table
    from mdprop.robustness.measure import left_out, measure
    from mdprop.robustness.networks import load_network
    from mdprop.robustness.stores import clean_stores
    from mdprop.runtime.memory import keep_memory

    keep_memory()
    data = p.active_dataset
    stores = clean_stores(Path("data/prepared") / p.dataset.name)
    network = load_network(model, data.mean, data.std, normalize=normalize, backbone=backbone, branch=branch)
    for name in left_out(network, p.adversary.sets):
        print(f"note: left out: adversary.sets.{name} attacks another run, or a branch that {model} has not")
    transform = test_transform(data.resize, data.image_size)
    run = measure(network, out, stores, transform, p.adversary, p.evaluate, p.corruptions.sets)
    summary = aggregate(collect([run]))
    print(terminal_table(summary, p.adversary.sets, width(), read_intervals([run])))
    for _, finding in read_findings([run]):
        print(f"warning: {finding}")
    print(f"wrote {out}")
