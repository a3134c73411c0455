"""What the retrieval metrics cost: against FAISS's bare search, the matrix product, and a peer.

    python -m benchmarks.retrieval
    python -m benchmarks.retrieval --gallery 1000000

The data are unit vectors around the centres of classes, which lie around the centres of families.
Up to --exact-limit rows every image searches all others (Stanford Online Products: 60,502 x 128), for
Recall@1, 10, 100, 1000, mAP@R and mAP@1000 from one search. The bare search is FAISS's IndexFlatIP for as
many neighbours; the floor is the product of the same matrices alone, by NumPy. At --peer rows the
same metrics (but mAP@1000 of 1000 neighbours) of pytorch-metric-learning's AccuracyCalculator.

Above --exact-limit, --queries of the rows search the gallery approximately and exactly, at --depth; the
gaps are measured on a control, and the peak memory is that of the process, data included.
"""

from __future__ import annotations

import argparse
import resource
import time
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

from benchmarks.timing import alternate, benchmark_parser, median_ratio, print_conditions, throughput_table
from mdprop.metrics import Retrieval, retrieve

Vectors = NDArray[np.float32]
KS = [1, 10, 100, 1000]
IMAGES = 5  # of a class, as in Stanford Online Products
BLOCK = 512  # queries of one matrix product


def main() -> None:
    parser = benchmark_parser(__doc__, repeats=2)
    parser.add_argument("--gallery", type=int, default=60_502)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--depth", type=int, default=None, help="neighbours (1000; approximately 10)")
    parser.add_argument("--queries", type=int, default=10_000, help="of an approximate search")
    parser.add_argument("--exact-limit", type=int, default=200_000)
    parser.add_argument("--peer", type=int, default=10_000, help="rows for pytorch-metric-learning")
    parser.add_argument("--noise", type=float, default=1.0, help="1: Recall@1 about 0.8 at the default size")
    args = parser.parse_args()
    print_conditions()
    vectors, labels = clustered(args.gallery, args.dimension, args.noise)
    if args.gallery > args.exact_limit:
        _approximate(vectors, labels, args)
    else:
        _exact(vectors, labels, args)


def clustered(count: int, dimension: int, noise: float) -> tuple[Vectors, NDArray[np.int64]]:
    """Unit vectors [count, dimension] and their classes, in the order of neither classes nor families."""
    rng = np.random.default_rng(0)
    classes = max(2, count // IMAGES)
    labels = np.arange(count) % classes
    families = rng.standard_normal((max(1, classes // 100), dimension), dtype=np.float32)
    centres = families[np.arange(classes) % len(families)]
    centres += 0.6 * rng.standard_normal(centres.shape, dtype=np.float32)
    vectors = rng.standard_normal((count, dimension), dtype=np.float32)
    for start in range(0, count, 2**16):
        rows = slice(start, start + 2**16)
        vectors[rows] = noise * vectors[rows] + centres[labels[rows]]
        vectors[rows] /= np.linalg.norm(vectors[rows], axis=1, keepdims=True)
    return vectors, labels


def _exact(vectors: Vectors, labels: NDArray[np.int64], args: argparse.Namespace) -> None:
    depth = args.depth or 1000
    ks = [k for k in KS if k <= depth]

    def ours() -> None:
        found.append(retrieve(vectors, labels, ks, ["R", depth]))

    found: list[Retrieval] = []
    bare = f"FAISS alone, {depth} neighbours"
    functions = {"ours, all metrics": ours, bare: lambda: _bare(vectors, vectors, depth)}
    seconds = alternate({**functions, "matrix product": lambda: _product(vectors)}, args.repeats, warmups=0)
    print(throughput_table(seconds, len(vectors)) + "\n")
    print(_scores(found[-1], ks) + "\n")

    few, few_labels = clustered(min(args.peer, len(vectors)), args.dimension, args.noise)
    few_depth = min(depth, len(few) - 1)
    peer = AccuracyCalculator(
        include=("precision_at_1", "mean_average_precision_at_r", "mean_average_precision"),
        k=few_depth,
        device=torch.device("cpu"),
    )
    few_seconds = alternate(
        {
            f"ours, {len(few)} rows": lambda: retrieve(few, few_labels, [1], ["R", few_depth]),
            f"pytorch-metric-learning, {len(few)} rows": lambda: peer.get_accuracy(
                torch.from_numpy(few), torch.from_numpy(few_labels)
            ),
        },
        max(3, args.repeats),
    )
    print(throughput_table(few_seconds, len(few)) + "\n")
    mine, theirs = few_seconds.values()
    print(f"pytorch-metric-learning / ours: {median_ratio(theirs, mine)}")
    own, alone, product = seconds.values()
    print(f"ours, in the time of the matrix product: {median_ratio(own, product)}")
    print(f"ours, in the time of FAISS alone: {median_ratio(own, alone)}")


def _approximate(vectors: Vectors, labels: NDArray[np.int64], args: argparse.Namespace) -> None:
    depth = args.depth or 10
    ks = [k for k in KS if k <= depth]
    rows = np.sort(np.random.default_rng(0).choice(len(vectors), args.queries, replace=False))
    given: dict[str, Any] = {
        "gallery": vectors,
        "gallery_labels": labels,
        "gallery_ids": np.arange(len(labels)),
    }
    start = time.perf_counter()
    found = retrieve(vectors[rows], labels[rows], ks, ["R"], **given, ids=rows, exact_limit=args.exact_limit)
    ours = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    few = vectors[rows[: max(1, args.queries // 10)]]
    start = time.perf_counter()
    _bare(few, vectors, depth)
    alone = (time.perf_counter() - start) * len(rows) / len(few)
    names = f"ours, {depth} neighbours: index, control, search", "FAISS alone, exactly, from a tenth"
    print(throughput_table({names[0]: [ours], names[1]: [alone]}, len(rows)) + "\n")
    print(_scores(found, ks))
    print(f"peak memory {memory:.2f} GiB, of which the vectors {vectors.nbytes / 2**30:.2f}\n")
    print(f"exact search / ours: {median_ratio([alone], [ours])}")


def _scores(found: Retrieval, ks: list[int]) -> str:
    scores = {f"recall_at_{k}": found.recall(k) for k in ks}
    scores |= {f"map_at_{str(depth).lower()}": found.mean_precision(depth) for depth in found.precision}
    return ", ".join(f"{name} {value:.4f}" for name, value in {**scores, **found.gaps}.items())


def _bare(queries: Vectors, gallery: Vectors, depth: int) -> None:
    index = faiss.IndexFlatIP(gallery.shape[1])
    index.add(gallery)
    index.search(queries, depth)


def _product(vectors: Vectors) -> None:
    product = np.empty((BLOCK, len(vectors)), dtype=np.float32)
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK]
        np.matmul(block, vectors.T, out=product[: len(block)])


if __name__ == "__main__":
    main()
