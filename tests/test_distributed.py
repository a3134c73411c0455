"""Two processes against one, on the CPU.

The cases run in one pair of processes (starting them takes seconds); each test looks at one result.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn
from torch.nn import functional as F
from torch.testing import assert_close

from mdprop import embedding
from mdprop.data import transforms
from mdprop.data.loading.datasets import TrainImages, store_batches, train_loader
from mdprop.data.loading.samplers import ClassBalancedSampler
from mdprop.data.stores.adversarial import read_adversarial, write_adversarial
from mdprop.data.stores.images import ImageStore
from mdprop.losses import build_loss
from mdprop.methods import METHODS
from mdprop.parallel.exchange import (
    from_main,
    gather_rows,
    in_order,
    rank,
    send,
    share_gradients,
    synchronized,
    turns,
    widest,
    world_size,
)
from mdprop.robustness import generation
from mdprop.robustness.embedding import extract_embeddings
from mdprop.robustness.generation import Threat, generate_set
from mdprop.training import TrainingAttack, attack_batch, clean_rows, recall_at_1, train, training_step
from tests.helpers import small_embedder, small_store

CPU = torch.device("cpu")
BATCH = 12
LABELS = torch.arange(BATCH // 2).repeat_interleave(2)
TRANSFORM = transforms.test_transform(16, 16)

Results = dict[str, Any]
Case = Callable[[Path], Any]
CASES: dict[str, Case] = {}


def case(name: str) -> Callable[[Case], Case]:
    def register(run: Case) -> Case:
        CASES[name] = run
        return run

    return register


def in_a_group(number: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = distributed.FileStore(str(folder / "rendezvous"), 2)
    patience = datetime.timedelta(seconds=60)
    distributed.init_process_group("gloo", store=store, rank=number, world_size=2, timeout=patience)
    torch.save({name: run(folder) for name, run in CASES.items()}, folder / f"results {number}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("distributed")
    small_store(path / "store.arrow", classes=6, images=5)
    return path


@pytest.fixture(scope="module")
def both(folder: Path) -> list[Results]:
    """What each of two processes found."""
    multiprocessing.spawn(in_a_group, (folder,), nprocs=2)
    return [torch.load(folder / f"results {number}.pt") for number in range(2)]


@pytest.fixture(scope="module")
def alone(folder: Path) -> Iterator[Results]:
    """What one process finds; in one thread too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield {name: run(folder) for name, run in CASES.items()}
    torch.set_num_threads(threads)


def assert_all_close(both: list[Results], alone: Results, name: str, **tolerance: Any) -> None:
    for results in both:
        assert_close(results[name], alone[name], **tolerance)


# --- the pieces ---


def numbered(*shape: int, seed: int = 5) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def own_rows(whole: Tensor) -> Tensor:
    return whole.chunk(world_size())[rank()]


@case("who")
def who(folder: Path) -> Any:
    return world_size(), rank(), list(range(5))[turns()], from_main(rank() + 10)


def test_processes_know_who_they_are(both: list[Results], alone: Results) -> None:
    assert [results["who"] for results in both] == [(2, 0, [0, 2, 4], 10), (2, 1, [1, 3], 10)]
    assert alone["who"] == (1, 0, [0, 1, 2, 3, 4], 10)


@case("in order")
def ordered(folder: Path) -> Any:
    found = []
    for count in range(6):
        own = [f"task {i}" for i in range(count)][turns()]
        if rank():
            send(own)
        else:
            found.append(list(in_order(own)))
    return found


def test_results_come_in_the_order_of_their_tasks(both: list[Results], alone: Results) -> None:
    expected = [[f"task {i}" for i in range(count)] for count in range(6)]
    assert both[0]["in order"] == alone["in order"] == expected
    assert both[1]["in order"] == []


@case("gather")
def gathered(folder: Path) -> Any:
    own = own_rows(numbered(4, 3, 2)).requires_grad_()
    whole = gather_rows(own) if world_size() > 1 else own
    (whole.square() * numbered(4, 3, 2)).sum().backward()
    assert own.grad is not None
    return whole.detach(), gather_rows(own.grad) if world_size() > 1 else own.grad


def test_gathered_rows_have_the_gradient_of_the_whole(both: list[Results], alone: Results) -> None:
    assert_all_close(both, alone, "gather", rtol=0, atol=0)


@case("widest")
def widest_ranges(folder: Path) -> Any:
    # rank 0: [0, 3], [-9, 1]; rank 1: [-1, 2], [4, 5]
    ranges = torch.tensor([[[0.0, 3.0], [-9.0, 1.0]], [[-1.0, 2.0], [4.0, 5.0]]])
    return widest(ranges[rank()])


def test_the_widest_range(both: list[Results], alone: Results) -> None:
    assert [results["widest"].tolist() for results in both] == [[[-1, 3], [-9, 5]]] * 2
    assert alone["widest"].tolist() == [[0, 3], [-9, 1]]


@case("gradients")
def gradients(folder: Path) -> Any:
    own = [torch.zeros(2, 3), torch.zeros(2), torch.zeros(4, dtype=torch.float64)]
    common = [torch.zeros(1), torch.zeros(1)]
    for parameter in own[:1] + own[2:]:
        parameter.grad = torch.full_like(parameter, 1.0 + rank())
    common[1].grad = torch.full((1,), 4.0 + rank())
    share_gradients(own, common)
    return [p.grad for p in own + common]


def test_own_gradients_are_added_and_common_ones_averaged(both: list[Results], alone: Results) -> None:
    for results, (added, averaged) in zip([*both, alone], [(3, 4.5), (3, 4.5), (1, 4)], strict=True):
        first, unused, wide, idle, mean = results["gradients"]
        assert unused is None and idle is None
        assert torch.equal(first, torch.full((2, 3), float(added)))
        assert torch.equal(wide, torch.full((4,), float(added), dtype=torch.float64))
        assert mean.item() == averaged


class Scaled(nn.BatchNorm2d):
    """A layer of its own class, like timm's, that calls batch norm itself."""

    def forward(self, x: Tensor) -> Tensor:
        state = self.running_mean, self.running_var, self.weight, self.bias
        return 2 * F.batch_norm(x, *state, self.training, 0.1, self.eps)


NORMS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "2d": lambda: (nn.BatchNorm2d(3), numbered(6, 3, 4, 4)),
    "channels last": lambda: (
        nn.BatchNorm2d(3),
        numbered(6, 3, 4, 4).contiguous(memory_format=torch.channels_last),
    ),
    "1d": lambda: (nn.BatchNorm1d(3), numbered(6, 3)),
    "large mean": lambda: (nn.BatchNorm2d(3), 1e4 + numbered(6, 3, 4, 4)),
    "cumulative": lambda: (nn.BatchNorm2d(3, momentum=None), numbered(6, 3, 4, 4)),
    "no affine": lambda: (nn.BatchNorm2d(3, affine=False), numbered(6, 3, 4, 4)),
    "no statistics": lambda: (nn.BatchNorm2d(3, track_running_stats=False), numbered(6, 3, 4, 4)),
    "eval": lambda: (nn.BatchNorm2d(3).eval(), numbered(6, 3, 4, 4)),
    "half": lambda: (nn.BatchNorm2d(3), numbered(6, 3, 4, 4).bfloat16()),
    "own class": lambda: (Scaled(3), numbered(6, 3, 4, 4)),
}


@case("batch norm")
def normalized(folder: Path) -> Any:
    found = {}
    for name, make in NORMS.items():
        norm, whole = make()
        norm = norm.to(torch.promote_types(whole.dtype, torch.float32))
        for i, parameter in enumerate(norm.parameters()):
            parameter.data += 0.3 * (i + 1) * torch.arange(3)
        x = own_rows(whole).requires_grad_()
        for _ in range(2):
            with synchronized():
                y = norm(x)
        (y.square() * own_rows(numbered(*whole.shape, seed=6))).sum().backward()
        share_gradients(norm.parameters())
        assert x.grad is not None
        rows = [y.detach(), x.grad]
        if world_size() > 1:
            rows = [gather_rows(t) for t in rows]
        found[name] = [*rows, *norm.state_dict().values(), *(p.grad for p in norm.parameters())]
    return found


@pytest.mark.parametrize("name", NORMS)
def test_batch_norm_is_that_of_the_whole_batch(both: list[Results], alone: Results, name: str) -> None:
    for results in both:
        tolerance: Any = {"rtol": 0.02, "atol": 0.02} if name == "half" else {"rtol": 1e-7, "atol": 1e-9}
        assert_close(results["batch norm"][name], alone["batch norm"][name], **tolerance)


# --- training ---

METHOD_CASES = [
    (method, loss, options)
    for method in ("standard", "at", "mdprop", "mdprop_unadv")
    for loss, options in (
        ("multi_similarity", {}),
        ("arcface", {}),
        ("s2sd", {"target_dims": [8, 16], "feature_delay": 1}),
    )
]
ATTACK = TrainingAttack(targets=3, target_kind="other_class", epsilon=0.05, steps=2, start_noise=0.01)
ATTACKS = {
    "ours": ATTACK,
    "authors": TrainingAttack(3, "any", epsilon=0.05, steps=1, start_noise=0.03, clip="batch"),
}


def batch(step: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    return torch.rand(BATCH, 1, 16, 16, generator=generator, dtype=torch.float64)


def steps(method_name: str, loss_name: str, options: dict[str, Any], dtype: torch.dtype) -> Any:
    """Three steps of gradient descent: losses, the first gradients, and the state at the end."""
    method = METHODS[method_name]
    model = small_embedder(method.branches).to(dtype).train()
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"embedding_dim": 6, "num_classes": BATCH // 2, "feature_dim": model.feature_dim}
    loss = build_loss(loss_name, options, **sizes).to(dtype)
    parameters = [*model.parameters(), *loss.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.05)
    rows, draws = clean_rows(method, BATCH), torch.Generator().manual_seed(3)
    attack = ATTACK if method.adversarial else None
    losses: list[Tensor] = []
    first: list[Tensor | None] = []
    for step in range(3):
        images = batch(step).to(dtype)[rows]
        value = training_step(model, loss, method, images, LABELS[rows], attack, draws)
        optimizer.zero_grad()
        value.backward()
        share_gradients(model.parameters(), loss.parameters())
        first = first or [None if p.grad is None else p.grad.clone() for p in parameters]
        optimizer.step()
        losses.append(value.detach())
    return losses, first, [*model.state_dict().values(), *loss.state_dict().values()]


@case("steps")
def all_steps(folder: Path) -> Any:
    return {
        (method, loss): steps(method, loss, options, torch.float64) for method, loss, options in METHOD_CASES
    }


@pytest.mark.parametrize(("method", "loss"), [(method, loss) for method, loss, _ in METHOD_CASES])
def test_losses_gradients_and_weights_are_those_of_one_process(
    both: list[Results], alone: Results, method: str, loss: str
) -> None:
    for results in both:
        for found, expected in zip(results["steps"][method, loss], alone["steps"][method, loss], strict=True):
            assert_close(found, expected, rtol=1e-7, atol=1e-9)
    assert_close(both[0]["steps"][method, loss], both[1]["steps"][method, loss], rtol=0, atol=0)


@case("float32")
def single_precision(folder: Path) -> Any:
    return steps("standard", "multi_similarity", {}, torch.float32)


def test_in_single_precision(both: list[Results], alone: Results) -> None:
    assert_all_close(both, alone, "float32", rtol=1e-4, atol=1e-5)


@case("attacks")
def attacked(folder: Path) -> Any:
    found = {}
    for name, attack in ATTACKS.items():
        for method in (METHODS["at"], METHODS["mdprop"], METHODS["mdprop_unadv"]):
            model = small_embedder(method.branches).double().eval()
            rows = clean_rows(method, BATCH)
            draws = torch.Generator().manual_seed(3)
            images, labels = attack_batch(model, method, batch()[rows], LABELS[rows], attack, draws)
            found[name, method.name] = images, labels
    return found


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize(
    ("method", "own"),
    [
        ("at", ([0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11])),
        ("mdprop", ([0, 1, 2, 6, 7, 8], [3, 4, 5, 9, 10, 11])),
        ("mdprop_unadv", ([0, 1, 4, 5, 8, 9], [2, 3, 6, 7, 10, 11])),
    ],
)
def test_adversarial_images_are_those_of_one_process(
    both: list[Results],
    alone: Results,
    attack: str,
    method: str,
    own: tuple[list[int], list[int]],
) -> None:
    images, labels = alone["attacks"][attack, method]
    assert (images - batch()).abs().max() > 0.04
    for results, rows in zip(both, own, strict=True):
        assert_close(results["attacks"][attack, method], (images[rows], labels[rows]), rtol=0, atol=1e-12)


@case("loop")
def loop(folder: Path) -> Any:
    method, store = METHODS["mdprop"], ImageStore(folder / "store.arrow")
    sampler = ClassBalancedSampler(store.labels, 8, 2, seed=0, places=clean_rows(method, 8))
    loader = train_loader(TrainImages(store, transforms.train_transform(16, (0.8, 1.0), False)), sampler, 0)
    model = small_embedder(method.branches).double()
    values: list[float] = []
    train(
        model,
        build_loss("multi_similarity", {}, embedding_dim=6, num_classes=6, feature_dim=4),
        method,
        loader,
        epochs=2,
        learning_rate=1e-3,
        weight_decay=1e-4,
        schedule="one_cycle",
        seed=0,
        attack=ATTACK,
        after_epoch=lambda epoch, found: values.append(found["loss"]),
    )
    return values, list(model.state_dict().values()), recall_at_1(model, store, TRANSFORM, CPU)


def test_a_training_is_that_of_one_process(both: list[Results], alone: Results) -> None:
    assert len(alone["loop"][0]) == 2
    assert 0 < alone["loop"][2] < 1
    assert_all_close(both, alone, "loop", rtol=1e-7, atol=1e-9)


# --- files ---


@case("files")
def files(folder: Path) -> Any:
    """An adversarial set and its embeddings, of five batches, and the clean embeddings of four."""
    store, model = ImageStore(folder / "store.arrow"), small_embedder().eval()
    threat = Threat("multi_target", epsilon=0.05, steps=2, step_ratio=0.5, targets=2)
    rows = np.arange(1, 28, 2)
    out = folder / f"by {world_size()}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "BATCH_SIZE", 3)
        patch.setattr(embedding, "BATCH_SIZE", 8)
        batches = generate_set(model, store, rows, TRANSFORM, threat, 0, CPU, turns())
        write_adversarial(out / "set.arrow", batches, {"goal": "multi_target"})
        from_main(None)  # written
        extract_embeddings(model, read_adversarial(out / "set.arrow", turns()), out / "set.parquet", CPU)
        extract_embeddings(model, store_batches(store, TRANSFORM, turns()), out / "clean.parquet", CPU)


@pytest.mark.parametrize("name", ["set.arrow", "set.parquet", "clean.parquet"])
def test_files_are_those_of_one_process_to_the_byte(
    folder: Path, both: list[Results], alone: Results, name: str
) -> None:
    assert (folder / "by 2" / name).read_bytes() == (folder / "by 1" / name).read_bytes()
    assert len(list((folder / "by 2").iterdir())) == 3
