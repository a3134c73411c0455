"""How costs grow: of a training step with the attack, of the other stages with the data set.

    python -m benchmarks.scaling
    python -m benchmarks.scaling --sizes 1000 10000 100000 --repeats 1

A step of conv4 on grey images of 28 pixels: mdprop with more targets T, mdprop with more attack steps,
and the methods by their batch-norm branches. `prepare` of small JPEGs in a folder per class, the
attack of all test images (one set, one step), their embedding, and `evaluate` of as many rows, whole
and in parts, with five images of a class, so that the classes grow with the images. The exponent of
growth is the slope of log seconds against log size, fitted to the medians: 1 is linear.

Exact search is quadratic, and so is k-means with as many clusters as classes.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.retrieval import clustered
from benchmarks.timing import alternate, benchmark_parser, markdown, print_conditions
from mdprop.attacks import Threat
from mdprop.branches import CLEAN
from mdprop.config import load_params
from mdprop.config.schema import EvaluateSettings
from mdprop.data.loading.datasets import store_batches
from mdprop.data.loading.transforms import test_transform
from mdprop.data.prepare import prepare
from mdprop.data.readers import folder as folder_reader
from mdprop.data.stores.adversarial import write_adversarial
from mdprop.data.stores.embeddings import write_embeddings
from mdprop.data.stores.images import ImageStore
from mdprop.losses import build_loss
from mdprop.methods import get_method
from mdprop.metrics import clustering_scores, embedding_density, retrieve, spectral_decay
from mdprop.models import build_model
from mdprop.robustness.embedding import extract_embeddings
from mdprop.robustness.evaluation import evaluate_run
from mdprop.robustness.generation import Adversary
from mdprop.runs import Run
from mdprop.runtime.hardware import device
from mdprop.training import training_step

TARGETS, STEPS = (1, 5, 20), (1, 2, 4)
METHODS = ("standard", "advprop", "mdprop", "mdprop_unadv")
PIXELS, DIM, PER_CLASS = 28, 128, 5
SEARCH, KMEANS, WHOLE = "evaluate: exact search", "evaluate: k-means", "evaluate, whole"
QUADRATIC = (SEARCH, KMEANS, WHOLE)


def main() -> None:
    parser = benchmark_parser(__doc__, repeats=2)
    parser.add_argument("--batch", type=int, default=64, help="clean images of a step")
    parser.add_argument("--step-repeats", type=int, default=9, help="turns of the training steps (9)")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000], help="images, two or more")
    args = parser.parse_args()
    if len(set(args.sizes)) < 2:
        parser.error("--sizes: a growth takes two or more")
    print_conditions()
    growth = measure_steps(args.batch, args.step_repeats)
    growth |= measure_stages(sorted(set(args.sizes)), args.repeats)
    others = {name: value for name, value in growth.items() if name not in QUADRATIC}
    worst = max(others, key=others.__getitem__)
    print(f"exact search grows with the exponent {growth[SEARCH]:.2f}, k-means with {growth[KMEANS]:.2f}")
    print(f"the worst exponent other than theirs ({worst}): {others[worst]:.2f}")


def measure_steps(batch: int, repeats: int) -> dict[str, float]:
    """Print what a training step costs; the exponents of T, of the attack's steps and of the branches."""
    steps = {f"T = {t}": training("mdprop", batch, t, 1) for t in TARGETS}
    steps |= {f"{s} attack steps": training("mdprop", batch, 5, s) for s in STEPS}
    steps |= {name: training(name, batch, 5, 1) for name in METHODS}
    seconds = alternate(steps, repeats, warmups=2)
    standard = statistics.median(seconds["standard"])
    rows = [["a training step", "seconds, median", "min..max", "standard steps"]]
    for name, values in seconds.items():
        middle = statistics.median(values)
        spread = f"{min(values):.3g}..{max(values):.3g}"
        rows.append([name, f"{middle:.3g}", spread, f"{middle / standard:.2f}"])
    print(markdown(rows) + "\n")
    attacked = {name: len(get_method(name).branches) for name in METHODS[1:]}
    growth = {
        "targets": exponent({t: seconds[f"T = {t}"] for t in TARGETS}),
        "attack steps": exponent({s: seconds[f"{s} attack steps"] for s in STEPS}),
        "branches": exponent({count: seconds[name] for name, count in attacked.items()}),
    }
    print(
        markdown([["a training step with more", "exponent"], *([k, f"{v:.2f}"] for k, v in growth.items())])
    )
    print()
    return growth


def training(method: str, batch: int, targets: int, steps: int) -> Callable[[], None]:
    """A function that does one step, update included."""
    chosen = get_method(method)
    model = build_model("conv4", DIM, branches=chosen.branches, mean=[0.5], std=[0.25])
    loss = build_loss("multi_similarity", {}, embedding_dim=DIM, num_classes=2, feature_dim=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
    attack = load_params().attack.model_copy(update={"targets": targets, "steps": steps})
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch, 1, PIXELS, PIXELS, generator=generator)
    labels = torch.arange(batch) // 2

    def step() -> None:
        optimizer.zero_grad()
        training_step(model, loss, chosen, images, labels, attack, generator).backward()
        optimizer.step()

    return step


def measure_stages(sizes: list[int], repeats: int) -> dict[str, float]:
    """Print what the stages cost at each size; their exponents."""
    tasks: dict[tuple[str, int], Callable[[], object]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for size in sizes:
            for name, function in stages(Path(scratch) / str(size), size).items():
                tasks[name, size] = function
        for name, size in tasks:  # once, at the least size
            if size == sizes[0]:
                tasks[name, size]()
        seconds = alternate({f"{name} {size}": f for (name, size), f in tasks.items()}, repeats, warmups=0)
    names = list(dict.fromkeys(name for name, _ in tasks))
    measured = {name: {size: seconds[f"{name} {size}"] for size in sizes} for name in names}
    growth = {name: exponent(values) for name, values in measured.items()}
    rows = [["", *(f"{size:,} images, seconds" for size in sizes), "exponent"]]
    for name, values in measured.items():
        rows.append([name, *(_spread(values[size]) for size in sizes), f"{growth[name]:.2f}"])
    print(markdown(rows) + "\n")
    return growth


def stages(folder: Path, size: int) -> dict[str, Callable[[], object]]:
    """What is timed for a data set of `size` images, in this order: `prepare` makes what the others read."""
    make_images(folder / "raw", size)
    settings = folder_reader.Settings(
        reader="folder", root=str(folder / "raw"), mode="L", resize=32, encoding="compressed",
        image_size=PIXELS, crop_scale=(0.5, 1.0), flip=False, mean=(0.5,), std=(0.25,),
    )  # fmt: skip
    transform = test_transform(32, PIXELS)
    model = build_model("conv4", DIM, mean=[0.5], std=[0.25]).eval().to(device())
    threats = {"set": Threat(goal="single_target", epsilon=0.05, steps=1)}
    run = Run("standard", 0, folder)
    evaluate = EvaluateSettings(ks=(1, 2, 4, 8), seed=0, exact_limit=10 * size)
    vectors, labels = clustered(size, DIM, noise=1.0)
    write_embeddings(run.embeddings(CLEAN, CLEAN), [(np.arange(size), labels, vectors)])

    def store() -> ImageStore:
        return ImageStore(folder / "prepared" / "test.arrow")

    def attack() -> None:
        adversary = Adversary(model, store(), transform, threats, queries=0, seed=0)
        write_adversarial(folder / "attacked.arrow", adversary.attack("set"), {})

    def embed() -> None:
        extract_embeddings(model, store_batches(store(), transform), folder / "embedded.parquet", device())

    return {
        "prepare": partial(prepare, "scaling", settings, folder / "prepared"),
        "attack": attack,
        "embed": embed,
        WHOLE: partial(evaluate_run, run, [CLEAN], {}, evaluate),
        SEARCH: partial(retrieve, vectors, labels, [1, 2, 4, 8], ["R", 1000]),
        KMEANS: partial(clustering_scores, vectors, labels, seed=0),
        "evaluate: density": partial(embedding_density, vectors, labels),
        "evaluate: spectral decay": partial(spectral_decay, vectors),
    }


def make_images(root: Path, count: int) -> None:
    """Small JPEGs in a folder per class; all but the first two classes are test images."""
    rng = np.random.default_rng(0)
    for image in range(count):
        number = image // PER_CLASS
        folder = root / ("train" if number < 2 else "test") / f"class {number:06}"
        folder.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (9, 12), dtype=np.uint8))
        coarse.resize((60, 45), Image.Resampling.BICUBIC).save(folder / f"{image:07}.jpg")


def exponent(seconds: Mapping[int, list[float]]) -> float:
    """The slope of log seconds against log size, by least squares over the medians.

    >>> round(exponent({10: [2.0], 100: [20.0], 1000: [200.0]}), 6)
    1.0
    """
    sizes = np.log(list(seconds))
    return float(np.polyfit(sizes, [np.log(statistics.median(values)) for values in seconds.values()], 1)[0])


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3g} ({min(values):.3g}..{max(values):.3g})"


if __name__ == "__main__":
    main()
