"""How `prepare` grows with a data set: images a second and peak memory at two sizes, ten times apart.

    python benchmarks/prepare_scale.py [IMAGES]

Makes a tree in the layout of Stanford Online Products in a temporary folder: 22,634 products of 120,053
JPEGs of 60x45 pixels (or IMAGES of them, in fewer products), and one of a tenth of it. Each is prepared
in a process of its own. The files are links to a few, so that the disk is not what is measured. Prints
for each size the seconds, images a second and the peak of resident memory, and last the ratios of the
larger to the smaller.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from mdprop.data.prepare import prepare
from mdprop.data.readers import sop

IMAGES, PRODUCTS = 120_053, 22_634
LINKS = 10_000  # to one file; some file systems allow few more than 60,000
KINDS = 12


def main() -> None:
    images = int(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    results = []
    for count in (images // 10, images):
        with tempfile.TemporaryDirectory() as folder:
            make_tree(Path(folder) / "raw", count)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                seconds, peak = pool.apply(measure, (folder,))
        print(
            f"{count:,} images: {seconds:.1f} s, {count / seconds:,.0f} images/s, peak {peak:,.0f} MiB",
            flush=True,
        )
        results.append((count, seconds, peak))
    (few, short, low), (many, long, high) = results
    print(f"{many / few:.2f} x the images: {long / short:.2f} x the time, {high / low:.2f} x the memory")


def measure(folder: str) -> tuple[float, float]:
    """Seconds of `prepare`, and the peak of this process's memory in MiB."""
    settings = sop.Settings(
        reader="sop",
        root=f"{folder}/raw",
        check_counts=False,
        mode="RGB",
        resize=32,
        encoding="compressed",
        image_size=28,
        crop_scale=(0.5, 1.0),
        flip=True,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
    )
    start = time.perf_counter()
    prepare("sop", settings, Path(folder) / "out", duplicates="allow")
    seconds = time.perf_counter() - start
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def make_tree(root: Path, images: int) -> None:
    """Products of the two splits in turn, their images in folders by kind, and the two lists."""
    rng = np.random.default_rng(0)
    kinds = [f"kind_{kind:02}_final" for kind in range(KINDS)]
    for folder in kinds:
        (root / folder).mkdir(parents=True)
    lists = {split: ["image_id class_id super_class_id path"] for split in ("train", "test")}
    products = max(4, images * PRODUCTS // IMAGES)
    source = Path()
    for image in range(images):
        product = image * products // images
        kind = product * KINDS // products
        path = f"{kinds[kind]}/{product}_{image}.JPG"
        if image % LINKS:
            os.link(source, root / path)
        else:
            source = root / path
            pixels = rng.integers(0, 256, (9, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((60, 45), Image.Resampling.BICUBIC).save(source, "JPEG")
        lists["test" if product % 2 else "train"].append(f"{image + 1} {product + 1} {kind + 1} {path}")
    for split, lines in lists.items():
        (root / f"Ebay_{split}.txt").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
