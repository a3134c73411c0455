"""How fast adversarial test sets are made, against the forwards and backwards that they cannot do without.

    python -m benchmarks.adversarial_generation

Ours is `Adversary` whole: decoding the images and their targets, embedding the targets, start noise,
steps, and the forward that measures what was reached. The floor is the model alone on images in
memory: per step of the attack a forward and a gradient of the images. The targets' forwards (T of them
for one image of a multi-targeted set) are timed apart.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.stores import noise_store
from benchmarks.timing import alternate, benchmark_parser, median_ratio, print_conditions, throughput_table
from mdprop.attacks import Threat
from mdprop.config import load_params
from mdprop.data.loading.datasets import BATCH_SIZE, store_batches
from mdprop.data.loading.transforms import test_transform
from mdprop.models import Embedder, build_model
from mdprop.robustness.generation import Adversary
from mdprop.runtime.hardware import device
from mdprop.runtime.memory import keep_memory


def main() -> None:
    adversary = load_params().adversary
    parser = benchmark_parser(__doc__, repeats=5)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--size", type=int, default=96, help="pixels of an image")
    parser.add_argument("--images", type=int, default=BATCH_SIZE)
    parser.add_argument("--goal", choices=("single_target", "multi_target"), default="multi_target")
    parser.add_argument("--targets", type=int, default=adversary.targets)
    parser.add_argument("--steps", type=int, default=adversary.steps)
    args = parser.parse_args()
    print_conditions()
    keep_memory()
    model = build_model(args.backbone, 128).eval().to(device()).to(memory_format=torch.channels_last)
    threat = Threat(goal=args.goal, epsilon=0.05, steps=args.steps, step_ratio=0.4, targets=args.targets)
    transform = test_transform(args.size, args.size)
    with tempfile.TemporaryDirectory() as scratch:
        store = noise_store(Path(scratch) / "test.arrow", args.images, args.size)
        batches = [images.to(device()) for _, _, images in store_batches(store, transform)]
        batches = [images.contiguous(memory_format=torch.channels_last) for images in batches]
        aims = args.targets if args.goal == "multi_target" else 1
        threats = {"set": threat}
        names = f"ours, {args.goal}", f"{args.steps} x (forward + gradient)", f"{aims} x targets' forward"
        seconds = alternate(
            {
                names[0]: lambda: list(Adversary(model, store, transform, threats, 0, 0).attack("set")),
                names[1]: lambda: [_steps(model, images, args.steps) for images in batches],
                names[2]: lambda: [_forwards(model, images, aims) for images in batches],
            },
            args.repeats,
        )
    print(throughput_table(seconds, args.images) + "\n")
    ours, steps, forwards = (seconds[name] for name in names)
    needed = [a + b for a, b in zip(steps, forwards, strict=True)]
    print(f"ours, in the time of the model's steps and targets: {median_ratio(ours, needed)}")
    print(f"ours, in the time of the model's steps alone: {median_ratio(ours, steps)}")


def _steps(model: Embedder, images: Tensor, steps: int) -> None:
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for _ in range(steps):
        images = images.detach().requires_grad_(True)
        torch.autograd.grad(model(images).sum(), images)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    _wait()


@torch.no_grad()
def _forwards(model: Embedder, images: Tensor, count: int) -> None:
    for _ in range(count):
        model(images)
    _wait()


def _wait() -> None:
    if device().type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
