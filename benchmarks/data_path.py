"""What it costs to load a training image, against torchvision's ImageFolder on the files themselves.

    python -m benchmarks.data_path

Draws natural-looking JPEGs of 500x375 pixels (smooth noise, edges, grain; quality 90), packs them with
`prepare` as any data set of a folder per class, in both encodings, and loads all through a `DataLoader`:
ours with `TrainImages` and, a batch at a time as in training, `to_float`; theirs with `ImageFolder`
(Pillow), RandomResizedCrop(224), a mirror image half of the time and ToTensor. Theirs does not normalise,
which in ours is the model's first operation.

Images a second and core: one thread a process; with more workers than cores the cores count.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Sampler
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.timing import alternate, benchmark_parser, markdown, median_ratio, print_conditions
from mdprop.config import load_params
from mdprop.data.loading.datasets import TrainImages, train_loader
from mdprop.data.loading.transforms import to_float, train_transform
from mdprop.data.prepare import prepare
from mdprop.data.stores.images import ImageStore

WIDTH, HEIGHT, RESIZE, CROP, CLASSES = 500, 375, 256, 224, 4
ENCODINGS = ("compressed", "raw")


def main() -> None:
    parser = benchmark_parser(__doc__, repeats=7)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2])
    args = parser.parse_args()
    torch.set_num_threads(1)
    print_conditions()
    with tempfile.TemporaryDirectory() as scratch:
        files = Path(scratch) / "files"
        for index in range(args.images):
            draw_jpeg(files / "train" / str(index % CLASSES) / f"{index}.jpg", index)
        for index in range(4):  # prepare needs classes to test on
            draw_jpeg(files / "test" / f"other {index % 2}" / f"{index}.jpg", args.images + index)
        ours = {encoding: pack(files, Path(scratch) / encoding, encoding) for encoding in ENCODINGS}
        crop = [transforms.RandomResizedCrop(CROP), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        theirs = ImageFolder(str(files / "train"), transforms.Compose(crop))
        print_parts(ours, theirs)
        measure(ours, theirs, args.batch, args.workers, args.repeats)


def draw_jpeg(path: Path, seed: int) -> None:
    """Noise of three scales, discs with sharp edges and grain, as a JPEG of quality 90 (about 50 kB)."""
    rng = np.random.default_rng(seed)
    pixels = 128 + rng.normal(0, 4, (HEIGHT, WIDTH, 1)).astype(np.float32).repeat(3, axis=2)
    for cells, height in ((4, 70), (16, 35), (64, 16)):
        for channel in range(3):
            coarse = rng.uniform(-height, height, (cells * HEIGHT // WIDTH + 2, cells + 2)).astype(np.float32)
            smooth = Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
            pixels[..., channel] += np.asarray(smooth)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    for _ in range(8):
        x, y, radius = rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT), rng.uniform(15, 90)
        pixels[(columns - x) ** 2 + (rows - y) ** 2 < radius**2] += rng.uniform(-60, 60, 3)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, "JPEG", quality=90)


class Shuffled(Sampler[list[tuple[int, int]]]):
    """All rows of a store once, in random batches, each with a seed of its augmentation."""

    def __init__(self, images: int, batch: int) -> None:
        self.images, self.batch = images, batch

    def __len__(self) -> int:
        return -(-self.images // self.batch)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = torch.randperm(self.images).tolist()
        seeds = torch.randint(2**62, (self.images,)).tolist()
        for start in range(0, self.images, self.batch):
            yield list(zip(order, seeds, strict=True))[start : start + self.batch]


def pack(files: Path, out: Path, encoding: str) -> TrainImages:
    block = load_params().datasets["folder"]
    sizes = {"root": str(files), "mode": "RGB", "resize": RESIZE, "image_size": CROP}
    prepare("folder", block.model_copy(update={**sizes, "encoding": encoding}), out)
    return TrainImages(ImageStore(out / "train.arrow"), train_transform(CROP, (0.08, 1.0), True))


def print_parts(ours: dict[str, TrainImages], theirs: ImageFolder) -> None:
    """What an image takes on disk, and where its time goes."""
    paths = [path for path, _ in theirs.samples]
    places = range(len(paths))
    rows = [["an image; milliseconds are medians", "kB", "read, decode", "crop, mirror, to tensor", "all"]]

    def add(
        name: str, files: Sequence[str | Path], read: Any, sources: Sequence[Any], change: Any, item: Any
    ) -> None:
        size = sum(os.path.getsize(file) for file in files) / len(paths) / 1000
        parts = [(read, sources), (change, [read(source) for source in sources[:32]]), (item, places)]
        rows.append([name, f"{size:.0f}", *(f"{1000 * _median_seconds(*part):.2f}" for part in parts)])

    add("ImageFolder", paths, theirs.loader, paths, theirs.transform, theirs.__getitem__)
    for name, images in ours.items():
        whole = partial(_item, images)
        add(f"ours, {name}", [images.store.file], images.store.image, places, images.transform, whole)
    print(markdown(rows) + "\n")


def _item(images: TrainImages, index: int) -> object:
    return images[index, index]


def measure(
    ours: dict[str, TrainImages], theirs: ImageFolder, batch: int, workers: list[int], repeats: int
) -> None:
    rows = [["workers", "images/s a core, median (min..max): ImageFolder"]]
    for name in ours:
        rows[0] += [f"ours, {name}", f"ratio, {name}"]
    for count in workers:
        loaders: dict[str, DataLoader[Any]] = {
            "ImageFolder": DataLoader(theirs, batch, True, num_workers=count, persistent_workers=count > 0),
            **{n: train_loader(images, Shuffled(len(theirs), batch), count) for n, images in ours.items()},
        }
        seconds = alternate({name: _exhaust(loader) for name, loader in loaders.items()}, repeats)
        cores = min(max(count, 1), os.cpu_count() or 1)
        rows.append([str(count)])
        for name in loaders:
            rates = [len(theirs) / s / cores for s in seconds[name]]
            rows[-1].append(f"{statistics.median(rates):.0f} ({min(rates):.0f}..{max(rates):.0f})")
            if name in ours:
                rows[-1].append(median_ratio(seconds["ImageFolder"], seconds[name]))
    print(markdown(rows) + "\n")
    print(f"loading an image with {workers[0]} workers, ImageFolder / ours, raw: {rows[1][-1]}")


def _exhaust(loader: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> Callable[[], None]:
    def run() -> None:
        for images, _ in loader:
            if images.dtype == torch.uint8:
                to_float(images)

    return run


def _median_seconds(function: Callable[[Any], object], items: Iterable[Any]) -> float:
    seconds = []
    for item in items:
        start = time.perf_counter()
        function(item)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
