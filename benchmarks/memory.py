"""Whether the memory of `prepare`, `attack` and `embed` grows with the data set: peaks at two sizes.

    python -m benchmarks.memory

Makes a folder per class of --images JPEGs of 240x180 pixels, and one of a tenth of it (the files are
links to a few), prepares them with a short side of 64 pixels, attacks all test images (half of all)
with one set and embeds them, clean and attacked, with an untrained conv4. Each is the stage's own
program in a process of its own. The peak is that of resident memory, pages of mapped files and the
libraries included; the part that is not of mapped files is sampled every 5 ms, and shown beside it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from ruamel.yaml import YAML

from benchmarks.timing import benchmark_parser, markdown, median_ratio, print_conditions
from mdprop.config import load_params
from mdprop.models import build_model, save_model

ROOT = Path(__file__).parents[1]
STAGES = ("prepare", "attack", "embed")
WIDTH, HEIGHT, RESIZE, CROP, DIM = 240, 180, 64, 56, 128
PER_CLASS = 10
FILES = 50  # that are linked to, under as many names as it takes
LINKS = 10_000  # to one file; some file systems allow few more than 60,000
SET = "multi_target_middle"


class Peak(NamedTuple):
    """MiB: of all resident memory, and of what is not of mapped files."""

    resident: float
    private: float


def main() -> None:
    parser = benchmark_parser(__doc__, repeats=1)
    parser.add_argument("--images", type=int, default=12_000, help="of the larger data set")
    parser.add_argument(
        "--encodings", nargs="+", choices=("compressed", "raw"), default=["compressed", "raw"]
    )
    args = parser.parse_args()
    if args.images < 40 * PER_CLASS:
        parser.error(f"--images: {40 * PER_CLASS} or more, as a tenth of them must be four classes")
    print_conditions()
    sizes = args.images // 10, args.images
    peaks: dict[tuple[str, str, int], list[Peak]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for size in sizes:
            make_images(Path(scratch) / str(size), size)
        for _ in range(args.repeats):
            for encoding in args.encodings:
                for size in sizes:
                    for stage, peak in run_stages(Path(scratch) / str(size), encoding):
                        peaks.setdefault((stage, encoding, size), []).append(peak)
    rows = [["", *(f"{size:,} images, MiB" for size in sizes), "without mapped files", "ratio"]]
    worst, name = "", ""
    for stage in STAGES:
        for encoding in args.encodings:
            small, large = (peaks[stage, encoding, size] for size in sizes)
            ratio = median_ratio([p.resident for p in large], [p.resident for p in small])
            private = " to ".join(f"{max(p.private for p in run):.0f}" for run in (small, large))
            resident = [f"{max(p.resident for p in run):.0f}" for run in (small, large)]
            rows.append([f"{stage}, {encoding}", *resident, private, ratio])
            if not worst or float(ratio.split()[0]) > float(worst.split()[0]):
                worst, name = ratio, f"{stage}, {encoding}"
    print(markdown(rows) + "\n")
    print(f"{sizes[1] / sizes[0]:.0f} x the images, the peak that grows most ({name}): {worst}")


def make_images(folder: Path, count: int) -> None:
    """Smooth noise with grain as JPEGs, PER_CLASS in the folder of a class, under folder/raw."""
    rng = np.random.default_rng(0)
    sources: list[Path] = []
    for image in range(count):
        path = folder / "raw" / f"class {image // PER_CLASS:06}" / f"{image:07}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        source = image // LINKS * FILES + image % FILES
        if source < len(sources):
            os.link(sources[source], path)
        else:
            coarse = Image.fromarray(rng.integers(0, 256, (HEIGHT // 12, WIDTH // 12, 3), dtype=np.uint8))
            smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
            noisy = np.clip(smooth + rng.normal(0, 4, smooth.shape), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(path, "JPEG", quality=90)
            sources.append(path)


def run_stages(folder: Path, encoding: str) -> Iterator[tuple[str, Peak]]:
    """Run the three stages in `folder`; the peak of each."""
    write_params(folder / "params.yaml", encoding)
    data = load_params(folder / "params.yaml").active_dataset
    model = build_model("conv4", DIM, mean=data.mean, std=data.std)
    save_model(model, folder / "runs/standard/0", backbone="conv4", embedding_dim=DIM)
    for stage in STAGES:
        arguments = [] if stage == "prepare" else ["--method", "standard", "--seed", "0"]
        yield stage, peak_of(stage, arguments, folder)


def write_params(path: Path, encoding: str) -> None:
    """The defaults, but for the folder of images, all of them attacked, and one light attack."""
    yaml = YAML()
    params = yaml.load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["dataset"] |= {"name": "folder", "duplicates": "allow"}
    params["datasets"]["folder"] |= {
        "root": "raw",
        "encoding": encoding,
        "resize": RESIZE,
        "image_size": CROP,
    }
    params["adversary"] |= {
        "queries": 0,
        "steps": 1,
        "targets": 2,
        "sets": {SET: {"goal": "multi_target", "epsilon": 0.05}},
    }
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(params, file)


# Runs a stage in this process, and prints what its memory came to. ru_maxrss would not do: a process
# inherits it from the one that starts it.
WATCHED = """
import atexit, re, runpy, sys, threading, time
from pathlib import Path

status, private = Path("/proc/self/status"), [0]

def read(name):
    return int(re.search(rf"^{name}:\\s+(\\d+) kB", status.read_text(), re.M)[1])

def watch():
    while True:
        private[0] = max(private[0], read("RssAnon"))
        time.sleep(0.005)

threading.Thread(target=watch, daemon=True).start()
atexit.register(lambda: print("peak", read("VmHWM"), private[0]))
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


def peak_of(stage: str, arguments: list[str], folder: Path) -> Peak:
    """Run a stage in `folder` in a new process. Needs Linux's /proc."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, f"stages.{stage}", *arguments],
        cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    found = re.search(r"^peak (\d+) (\d+)$", done.stdout, re.M)
    assert found, done.stdout
    return Peak(*(int(number) / 1024 for number in found.groups()))


if __name__ == "__main__":
    main()
