"""How fast a store is embedded, against the model's forward on images in memory.

    python -m benchmarks.embedding

Ours is `extract_embeddings` whole: decoding, the centre crop, the forward, the Parquet file.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.stores import noise_store
from benchmarks.timing import alternate, benchmark_parser, median_ratio, print_conditions, throughput_table
from mdprop.data.loading.datasets import store_batches
from mdprop.data.loading.transforms import test_transform
from mdprop.models import Embedder, build_model
from mdprop.models.embedder import embed_images
from mdprop.robustness.embedding import extract_embeddings
from mdprop.runtime.hardware import device
from mdprop.runtime.memory import keep_memory


def main() -> None:
    parser = benchmark_parser(__doc__, repeats=5)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", type=int, default=224, help="pixels of an image")
    parser.add_argument("--images", type=int, default=64)
    args = parser.parse_args()
    print_conditions()
    keep_memory()
    model = build_model(args.backbone, 128).eval().to(device()).to(memory_format=torch.channels_last)
    transform = test_transform(args.size, args.size)
    with tempfile.TemporaryDirectory() as scratch:
        store = noise_store(Path(scratch) / "test.arrow", args.images, args.size)
        batches = [images for _, _, images in store_batches(store, transform)]
        names = "ours, from the store to Parquet", "the model's forward alone"
        out = Path(scratch) / "embeddings.parquet"
        seconds = alternate(
            {
                names[0]: lambda: extract_embeddings(model, store_batches(store, transform), out, device()),
                names[1]: lambda: forwards(model, batches),
            },
            args.repeats,
        )
    print(throughput_table(seconds, args.images) + "\n")
    print(f"ours, in the time of the model's forward alone: {median_ratio(*(seconds[n] for n in names))}")


def forwards(model: Embedder, batches: list[Tensor]) -> None:
    found = [embed_images(model, images, device()) for images in batches]
    found[-1].cpu()  # waits for a GPU


if __name__ == "__main__":
    main()
