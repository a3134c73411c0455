"""What a training step costs, against the authors' step, the standard step and the arithmetic.

    python -m benchmarks.training_step                      # ResNet-50, 224 pixels, batch 16
    python -m benchmarks.training_step --backbone resnet18 --size 64 --batch 32 --repeats 7
    python -m benchmarks.training_step --check              # the same numbers as theirs?

Two limits, both measured in the same run. "convolutions alone" runs each convolution and linear
layer of the network by itself as often as a step must: forward twice and gradient of the input once
for the attack, forward and both gradients for twice the batch (9 forwards in all), channels-last,
nothing else. "matrix product" is the number of floating-point operations of these 9 forwards at the
rate of a product of two 2048x2048 matrices.

`--check` trains both from the same weights with the same images, targets and noise, ours with the
authors' rules (normalised units, clip range of the batch, any target), and compares losses and weights.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.authors_step import AuthorsTraining, Draws
from benchmarks.timing import (
    OwnSeconds,
    alternate,
    benchmark_parser,
    median_ratio,
    print_conditions,
    throughput_table,
)
from mdprop.config.attacks import AttackSettings
from mdprop.losses import build_loss
from mdprop.methods import METHODS
from mdprop.models import Embedder, build_model, place
from mdprop.training import training_step
from mdprop.training.step import Precision

DIM, TARGETS, EPSILON, START_NOISE = 128, 5, 0.01, 0.0005
LEARNING_RATE, WEIGHT_DECAY = 1e-5, 4e-4
FORWARDS = 9  # attack: targets, forward, gradient of the images; then forward and backward of 2B images
# In float32 rounding turns the sign of a few pixels' tiny gradients, hence whole steps of the attack;
# in float64 nothing of that is left.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 2e-3}


class Ours:
    """A model in training as `mdprop.training.train` trains it, one step at a time."""

    def __init__(
        self,
        method: str,
        backbone: str,
        learning_rate: float,
        weights: torch.dtype = torch.float32,
        shared_forward: bool = False,
        precision: Precision = "float32",
    ) -> None:
        self.method = METHODS[method]
        torch.manual_seed(0)
        model = build_model(backbone, DIM, branches=self.method.branches)
        self.model: Embedder = place(model.to(weights), "cpu")
        self.loss = build_loss("multi_similarity", {}, embedding_dim=DIM, num_classes=2, feature_dim=1)
        parameters = self.model.parameters()
        self.optimizer = torch.optim.Adam(parameters, lr=learning_rate, weight_decay=WEIGHT_DECAY, fused=True)
        self.attack = AttackSettings(
            targets=TARGETS,
            epsilon=EPSILON,
            steps=1,
            start_noise=START_NOISE,
            compatibility="authors",
            units=None,
            clip=None,
            target_kind=None,
            batchnorm_start=None,
            shared_forward=shared_forward,
        )
        self.generator = torch.Generator().manual_seed(0)
        self.precision = precision

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One update; returns the loss, still on its device. images [B, 3, H, W] in [0, 1]."""
        images = images.to(memory_format=torch.channels_last)
        given = images, labels, self.attack, self.generator, self.precision
        value = training_step(self.model, self.loss, self.method, *given)
        self.optimizer.zero_grad()
        value.backward()
        self.optimizer.step()
        return value.detach()


def main() -> None:
    parser = benchmark_parser(__doc__, repeats=3)
    parser.add_argument("--backbone", default=None, help="a torchvision ResNet (resnet50; --check: resnet18)")
    parser.add_argument("--size", type=int, default=None, help="pixels (224; --check: 64)")
    parser.add_argument("--batch", type=int, default=None, help="clean images of a step (16; --check: 32)")
    parser.add_argument("--check", action="store_true", help="compare numbers, not times")
    args = parser.parse_args()
    backbone = args.backbone or ("resnet18" if args.check else "resnet50")
    size, batch = args.size or (64 if args.check else 224), args.batch or (32 if args.check else 16)
    if batch % 4:
        parser.error("--batch must be a multiple of 4: two slices of whole pairs")
    print_conditions()
    if args.check:
        sys.exit(not check(backbone, size, batch))
    measure(backbone, size, batch, args.repeats)


def batch_of(size: int, batch: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Smooth random images in [0, 1] and labels, two of a class."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, max(size // 8, 2), max(size // 8, 2), generator=generator)
    images = nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return images, torch.arange(batch // 2).repeat_interleave(2)


def measure(backbone: str, size: int, batch: int, repeats: int) -> None:
    images, labels = batch_of(size, batch)
    # Nothing is learnt: on one batch the loss would soon be without pairs, on which theirs fails.
    mdprop, standard = Ours("mdprop", backbone, 0.0), Ours("standard", backbone, 0.0)
    authors = AuthorsTraining(
        backbone, DIM, targets=TARGETS, epsilon=EPSILON, start_noise=START_NOISE,
        learning_rate=0.0, weight_decay=WEIGHT_DECAY,
    )  # fmt: skip
    normalised = (images - mdprop.model.mean) / mdprop.model.std
    work, convolutions = convolutions_alone(standard.model, images)
    shared = Ours("mdprop", backbone, 0.0, shared_forward=True)
    mixed = Ours("mdprop", backbone, 0.0, shared_forward=True, precision="bfloat16")
    names = (
        "the authors' mdprop",
        "ours, mdprop",
        "ours, mdprop, shared forward",
        "ours, mdprop, shared forward, bfloat16",
        "ours, standard",
        "convolutions alone",
        "matrix product",
    )
    seconds = alternate(
        {
            names[0]: lambda: authors.step(normalised, labels),
            names[1]: lambda: mdprop.step(images, labels),
            names[2]: lambda: shared.step(images, labels),
            names[3]: lambda: mixed.step(images, labels),
            names[4]: lambda: standard.step(images, labels),
            names[5]: convolutions,
            names[6]: lambda: OwnSeconds(FORWARDS * work / product_rate()),
        },
        repeats,
    )
    theirs, ours, sharing, halved, plain, convs, product = (seconds[name] for name in names)
    print(throughput_table(seconds, batch))
    rate = FORWARDS * work / 1e9
    print(
        f"\n{rate:.0f} GFLOP a step of {batch} images at {size} pixels; ours runs at "
        f"{rate / statistics.median(ours):.0f} GFLOP/s, its convolutions alone "
        f"at {rate / statistics.median(convs):.0f}, a matrix product "
        f"at {rate / statistics.median(product):.0f}\n"
    )
    print(f"an mdprop step, in standard steps: {median_ratio(ours, plain)}")
    print(f"an mdprop step, in the time of its convolutions alone: {median_ratio(ours, convs)}")
    print(f"an mdprop step, in the time of its arithmetic as a matrix product: {median_ratio(ours, product)}")
    print(f"the authors' step / ours with the shared forward: {median_ratio(theirs, sharing)}")
    print(f"the authors' step / ours with the shared forward, in bfloat16: {median_ratio(theirs, halved)}")
    print(f"the authors' step / ours: {median_ratio(theirs, ours)}")


@dataclass
class Layer:
    """One convolution or linear layer, and how often the network has it with this input."""

    module: nn.Module
    shape: torch.Size
    layout: torch.memory_format
    times: int = field(default=1)


def convolutions_alone(model: Embedder, images: Tensor) -> tuple[int, Callable[[], OwnSeconds]]:
    """The operations of one forward, and a function: seconds of all layers by themselves in one step."""
    layers: dict[str, Layer] = {}

    def note(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        key = f"{module} {tuple(inputs[0].shape)}"
        if key in layers:
            layers[key].times += 1
        else:
            last = inputs[0].ndim == 4 and not inputs[0].is_contiguous()
            layout = torch.channels_last if last else torch.contiguous_format
            layers[key] = Layer(module, inputs[0].shape, layout)

    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        model.eval()(images.contiguous(memory_format=torch.channels_last))
    for hook in hooks:
        hook.remove()
    first = next(iter(layers))

    def seconds() -> OwnSeconds:
        own = (layer.times * _layer_seconds(layer, key == first) for key, layer in layers.items())
        return OwnSeconds(sum(own))

    return counter.get_total_flops(), seconds


def _layer_seconds(layer: Layer, first: bool) -> float:
    """Attack (forward twice, gradient of the input once), then both gradients for twice the batch.

    first: the layer sees the images, which need a gradient in the attack only.
    """
    attacked = torch.rand(layer.shape)
    learned = torch.rand(2 * layer.shape[0], *layer.shape[1:])
    attacked, learned = (x.contiguous(memory_format=layer.layout) for x in (attacked, learned))
    with torch.no_grad():
        ones, twos = (torch.ones_like(layer.module(x)) for x in (attacked, learned))
    parameters = list(layer.module.parameters())
    start = time.perf_counter()
    with torch.no_grad():
        layer.module(attacked)
    attacked.requires_grad_(True)
    torch.autograd.grad(layer.module(attacked), attacked, ones)
    learned.requires_grad_(not first)
    torch.autograd.grad(layer.module(learned), parameters if first else [learned, *parameters], twos)
    return time.perf_counter() - start


def product_rate(side: int = 2048) -> float:
    """Floating-point operations a second of a product of two square matrices."""
    a, b = torch.rand(side, side), torch.rand(side, side)
    start = time.perf_counter()
    for _ in range(5):
        a @ b
    return 5 * 2 * side**3 / (time.perf_counter() - start)


def check(backbone: str, size: int, batch: int, steps: int = 3) -> bool:
    """Whether losses and weights agree after `steps` steps, in both precisions; prints how closely."""
    return all([_check(backbone, size, batch, steps, precision) for precision in TOLERANCES])


def _check(backbone: str, size: int, batch: int, steps: int, precision: torch.dtype) -> bool:
    ours = Ours("mdprop", backbone, LEARNING_RATE, precision)
    theirs = AuthorsTraining(
        backbone, DIM, targets=TARGETS, epsilon=EPSILON, start_noise=START_NOISE,
        learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY,
    )  # fmt: skip
    theirs.network.load_state_dict(authors_state(ours.model))
    theirs.network.to(precision)
    chance = torch.Generator().manual_seed(0)
    worst = 0.0
    for step in range(steps):
        images, labels = batch_of(size, batch, seed=step)
        images = images.to(precision)
        loss = ours.step(images, labels).item()
        normalised = (images - ours.model.mean) / ours.model.std
        expected = theirs.step(normalised, labels, draw(normalised, chance))
        print(f"{precision}: loss {step + 1}: ours {loss:.10f}, theirs {expected:.10f}")
        worst = max(worst, abs(loss - expected) / abs(expected))
    apart, allowed = difference(authors_state(ours.model), theirs.network.state_dict()), TOLERANCES[precision]
    agree = max(worst, apart) < allowed
    print(
        f"{precision}: relative difference of the losses {worst:.1e}, of the weights {apart:.1e}, "
        f"allowed {allowed:.0e}: {'the same' if agree else 'NOT the same'}"
    )
    return agree


def draw(normalised: Tensor, generator: torch.Generator) -> Draws:
    """What `training_step` draws for this batch from a generator in the same state."""
    half = len(normalised) // 2
    single, *multi = (torch.randperm(half, generator=generator) for _ in range(1 + TARGETS))
    noise = (torch.rand(normalised.shape, generator=generator) * 2 - 1).to(normalised) * START_NOISE
    first, second = noise.split(half)
    return Draws((single[None], torch.stack(multi)), (first, second))


def authors_state(model: Embedder) -> dict[str, Tensor]:
    """The state of our network under the names that theirs has."""
    names = {"branches.clean.": "", "branches.single_target.": "single.", "branches.multi_target.": "multi."}
    state = {}
    for name, value in model.network.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        state[name] = value
    return state


def difference(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """|ours - theirs| / |theirs| over all parameters and running statistics together."""
    names = [name for name, value in theirs.items() if value.is_floating_point()]
    apart = torch.stack([(ours[name] - theirs[name]).norm() for name in names]).norm()
    return (apart / torch.stack([theirs[name].norm() for name in names]).norm()).item()


if __name__ == "__main__":
    main()
