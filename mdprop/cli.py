"""The `mdprop` command: settings by name, results and their check, trained networks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from mdprop.runtime.entrance import run_stage

app = typer.Typer(
    help="Deep metric learning with multiple batch norms: settings, results and models.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

METRICS = Path("report/metrics.json")
PARAMS = Path("params.yaml")
PRESETS = Path("presets.yaml")
MetricsOption = Annotated[Path, typer.Option("--metrics", help="The metrics of a report.")]


@app.command()
def table(metrics: MetricsOption = METRICS) -> None:
    """Print the table of methods and input distributions."""
    from mdprop.config import load_params
    from mdprop.report.aggregate import read_summary
    from mdprop.report.confidence import load_intervals
    from mdprop.report.terminal import terminal_table

    summary = read_summary(metrics)
    threats = load_params(PARAMS).adversary.sets if PARAMS.exists() else {}
    intervals = load_intervals(metrics.with_name("intervals.json"), summary)
    print(terminal_table(summary, threats, _width(), intervals))


@app.command()
def check(
    baseline: Annotated[Path, typer.Option(help="The committed baseline, such as baselines/default.json.")],
    metrics: MetricsOption = METRICS,
    update: Annotated[bool, typer.Option("--update", help="Write the baseline instead of checking.")] = False,
) -> None:
    """Compare metrics with a baseline; exit code 1 where one fell beyond its tolerance."""
    from mdprop import regression

    values = regression.read_metrics(metrics)
    if update:
        known = regression.read_baseline(baseline, patterns_only=True) if baseline.exists() else None
        regression.write_baseline(baseline, regression.update(values, known))
        print(f"wrote {baseline}")
        return
    expected = regression.read_baseline(baseline)
    drops = regression.check(values, expected)
    for note in regression.notes(values, expected):
        print(f"note: {note}")
    for drop in drops:
        print(f"FAILED {drop}", file=sys.stderr)
    if drops:
        raise typer.Exit(1)
    print(f"{metrics}: no metric fell below {baseline}")


@app.command()
def preset(
    names: Annotated[
        list[str] | None, typer.Argument(help="Presets, a later one over an earlier one.")
    ] = None,
) -> None:
    """Write settings of presets.yaml into params.yaml; without a name, list them."""
    from mdprop.presets import apply_presets, read_presets

    known = read_presets(PRESETS)
    if not names:
        print("\n".join(known))
        return
    changed = apply_presets(PARAMS, known, names)
    print(f"{PARAMS}: {len(changed)} value(s) changed; `git restore {PARAMS}` takes them back")


@app.command()
def export(
    model_dir: Annotated[Path, typer.Argument(help="A trained model, such as runs/mdprop/0.")],
    out: Annotated[Path, typer.Argument(help="A .safetensors or .pth file.")],
    branch: Annotated[
        str,
        typer.Option(help="The batch-norm branch to keep, or a mixture of two: 'clean+25%multi_target'."),
    ] = "clean",
) -> None:
    """Write one branch, or a mixture of two, as a plain network's state dict."""
    from mdprop.models import export_network

    export_network(model_dir, out, branch)
    print(f"wrote {out}")


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
    from mdprop.robustness.embedding import clean_stores
    from mdprop.robustness.measure import left_out, measure
    from mdprop.robustness.networks import load_network
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
    print(terminal_table(summary, p.adversary.sets, _width(), read_intervals([run])))
    for _, finding in read_findings([run]):
        print(f"warning: {finding}")
    print(f"wrote {out}")


def _width() -> int:
    """Of a table: the terminal's, 100 at most."""
    import shutil

    return min(100, shutil.get_terminal_size((100, 24)).columns)


def main() -> None:
    """The console script: exit code 2 for the user's mistakes, 1 for a failed check."""
    run_stage(app)
