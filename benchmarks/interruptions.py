"""What it costs a run that nothing interrupts to keep what an interrupted one would need.

    python -m benchmarks.interruptions

Training with a state after each epoch, synced to the disk, against training without any; and a set
attacked in parts that are kept, against the same in one go. Parts are kept every second here, every 30
seconds by the stages. Seconds are of CPU, over all threads, which other programs hardly move.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from benchmarks.stores import noise_store
from benchmarks.timing import (
    OwnSeconds,
    alternate,
    benchmark_parser,
    median_ratio,
    print_conditions,
    throughput_table,
)
from mdprop.attacks import Threat
from mdprop.config import load_params
from mdprop.config.attacks import AttackSettings
from mdprop.config.schema import TrainSettings
from mdprop.data.loading.datasets import TrainImages, train_loader
from mdprop.data.loading.samplers import ClassBalancedSampler
from mdprop.data.loading.transforms import test_transform, train_transform
from mdprop.data.stores.adversarial import Attacked, write_adversarial
from mdprop.data.stores.images import ImageStore
from mdprop.losses import MultiSimilarityLoss
from mdprop.methods import METHODS
from mdprop.models import build_model, place
from mdprop.parallel import parts
from mdprop.parallel.parts import Parts
from mdprop.parallel.resume import kept
from mdprop.parallel.rows import clean_rows
from mdprop.robustness.generation import Adversary
from mdprop.runtime.hardware import device
from mdprop.runtime.memory import keep_memory
from mdprop.training import train
from mdprop.training.state import Keeper

METHOD = METHODS["mdprop"]
NAMES = "training, no state", "training, a state each epoch", "a set in one go", "a set, parts each second"


def main() -> None:
    parser = benchmark_parser(__doc__, repeats=5)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--size", type=int, default=64, help="pixels of an image")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=8, help="of an epoch")
    parser.add_argument("--epochs", type=int, default=2)
    args = parser.parse_args()
    print_conditions()
    keep_memory()
    parts.SECONDS_BETWEEN_PIECES = 1.0
    params = load_params()
    settings = params.train.model_copy(
        update={"epochs": args.epochs, "batch_size": args.batch, "images_per_class": 4}
    )
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)  # where states are kept
        images = args.batch * args.steps
        store = noise_store(Path("store.arrow"), images, args.size)
        trained = partial(_trained, store, args.backbone, args.size, settings, params.attack)
        attacked = partial(_attacked, store, args.backbone, args.size)
        runs = [partial(run, keep) for run in (trained, attacked) for keep in (False, True)]
        seconds = alternate(dict(zip(NAMES, map(_timed, runs), strict=True)), args.repeats)
        os.chdir(os.sep)
    print(throughput_table(seconds, images) + "\n")
    plain, states, whole, pieces = (seconds[name] for name in NAMES)
    print(f"a set by parts / in one go: {median_ratio(pieces, whole)}")
    print(f"training with states / without: {median_ratio(states, plain)}")


def _timed(run: Callable[[], object]) -> Callable[[], OwnSeconds]:
    def timed() -> OwnSeconds:
        start = time.process_time()
        run()
        return OwnSeconds(time.process_time() - start)

    return timed


def _trained(
    store: ImageStore, backbone: str, size: int, settings: TrainSettings, attack: AttackSettings, keep: bool
) -> None:
    model = place(build_model(backbone, 128, branches=METHOD.branches), device())
    loss = MultiSimilarityLoss().to(device())
    rows = clean_rows(METHOD, settings.batch_size)
    sampler = ClassBalancedSampler(
        store.labels, settings.batch_size, settings.images_per_class, 0, places=rows
    )
    loader = train_loader(TrainImages(store, train_transform(size, (0.5, 1.0), True)), sampler, 0)
    with kept("train", {}) if keep else nullcontext() as state:
        keeper = Keeper(state, lambda epoch, values: None, "", "training") if state else None
        train(model, loss, METHOD, loader, settings, attack, 0, keeper=keeper)


def _attacked(store: ImageStore, backbone: str, size: int, keep: bool) -> None:
    model = place(build_model(backbone, 128), device()).eval()
    threats = {"set": Threat(goal="multi_target", epsilon=0.05, steps=5, step_ratio=0.4, targets=5)}
    adversary = Adversary(model, store, test_transform(size, size), threats, 0, 0)
    file = Path("set.arrow")
    write, make = partial(write_adversarial, file, settings={}), partial(adversary.attack, "set")
    with kept("attack", {}) if keep else nullcontext() as state:
        if state:
            Parts(state).write((file,), write, make, Attacked._make)
        else:
            write(make())


if __name__ == "__main__":
    main()
