from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mdprop.data.loading.datasets import TrainImages, train_loader
from mdprop.data.loading.samplers import ClassBalancedSampler
from mdprop.data.loading.transforms import train_transform
from mdprop.data.stores.images import ImageStore
from mdprop.losses import MultiSimilarityLoss
from mdprop.methods import METHODS
from mdprop.models import Embedder, build_model
from mdprop.training import train
from tests.helpers import attack_settings, small_store, train_settings

ATTACK = attack_settings(targets=2, epsilon=0.03)
Batches = DataLoader[tuple[Tensor, int]]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    folder: Path = tmp_path_factory.mktemp("store")
    return small_store(folder / "train.arrow", classes=4, images=6)


def loader(store: ImageStore, seed: int = 0) -> Batches:
    sampler = ClassBalancedSampler(store.labels, 8, 2, seed)
    return train_loader(TrainImages(store, train_transform(16, (0.8, 1.0), False)), sampler, 0)


def trained(
    store: ImageStore,
    method: str = "mdprop",
    batches: int = 0,
    loss: nn.Module | None = None,
    seed: int = 0,
    **options: Any,
) -> tuple[Embedder, list[float]]:
    """A model after training, and the mean loss of each epoch. `batches`: the sampler's seed."""
    torch.manual_seed(0)
    model = build_model("conv4", 6, branches=METHODS[method].branches, mean=[0.5], std=[0.25])
    losses: list[float] = []

    def after_epoch(epoch: int, values: Mapping[str, float]) -> Mapping[str, float]:
        assert list(values) == ["loss"]
        losses.append(values["loss"])
        assert epoch == len(losses)
        return values

    returned = train(
        model,
        loss or MultiSimilarityLoss(),
        METHODS[method],
        loader(store, batches),
        train_settings(**options),
        ATTACK if METHODS[method].adversarial else None,
        seed,
        after_epoch,
    )
    assert returned is model
    return model, losses


def same(model: nn.Module, other: nn.Module) -> bool:
    state, others = model.state_dict(), other.state_dict()
    return all(torch.equal(value, others[key]) for key, value in state.items())


@pytest.mark.parametrize("method", ["standard", "mdprop_unadv"])
def test_the_same_seed_gives_the_same_weights(store: ImageStore, method: str) -> None:
    first, losses = trained(store, method)
    torch.rand(7)  # the global generator has no say
    second, again = trained(store, method)
    assert same(first, second)
    assert losses == again


def test_the_seed_draws_the_attacks(store: ImageStore) -> None:
    assert not same(trained(store, seed=0)[0], trained(store, seed=1)[0])
    assert same(trained(store, "standard", seed=0)[0], trained(store, "standard", seed=1)[0])


def test_the_samplers_seed_draws_the_batches(store: ImageStore) -> None:
    assert not same(trained(store, "standard")[0], trained(store, "standard", batches=1)[0])


def test_each_epoch_draws_other_batches_and_attacks(
    store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bytes, int]] = []

    def step(
        model: nn.Module,
        loss: nn.Module,
        method: Any,
        images: Tensor,
        labels: Tensor,
        attack: Any,
        draws: Any,
        precision: str,
    ) -> Tensor:
        if not seen or draws.initial_seed() != seen[-1][1]:
            seen.append((images.contiguous().numpy().tobytes(), draws.initial_seed()))
        return loss(model(images), labels)

    monkeypatch.setattr("mdprop.training.loop.training_step", step)
    for seed in (0, 1):
        trained(store, "standard", epochs=3, seed=seed)
    assert len(seen) == 6
    assert len({images for images, _ in seen[:3]}) == 3
    assert [images for images, _ in seen[:3]] == [images for images, _ in seen[3:]]
    assert len({draws for _, draws in seen}) == 6


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_goes_down(store: ImageStore, method: str) -> None:
    model, losses = trained(store, method, epochs=20, learning_rate=1e-3)
    assert len(losses) == 20
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
    assert not model.training


def test_the_epochs_loss_is_the_mean_of_its_batches(store: ImageStore) -> None:
    values: list[float] = []

    class Recorded(MultiSimilarityLoss):
        def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
            value = super().forward(embeddings, labels)
            values.append(value.item())
            return value

    _, losses = trained(store, "standard", loss=Recorded())
    assert len(values) == 6
    assert losses == pytest.approx([sum(values[:3]) / 3, sum(values[3:]) / 3])


@pytest.mark.parametrize("schedule", ["constant", "one_cycle"])
def test_schedules(store: ImageStore, monkeypatch: pytest.MonkeyPatch, schedule: str) -> None:
    rates: list[float] = []

    class Recorded(torch.optim.Adam):
        def step(self, closure: Any = None) -> Any:
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "Adam", Recorded)
    trained(store, "standard", epochs=10, learning_rate=2e-3, schedule=schedule)
    assert len(rates) == 30
    if schedule == "constant":
        assert set(rates) == {2e-3}
    else:
        peak = rates.index(max(rates))
        assert max(rates) == pytest.approx(2e-3, rel=0.01)
        assert 0 < peak < 15
        assert rates[: peak + 1] == sorted(rates[: peak + 1])
        assert rates[peak:] == sorted(rates[peak:], reverse=True)
        assert rates[0] < 2e-3 / 10
        assert rates[-1] < rates[0] / 100


def test_a_cycle_of_one_step_has_the_peak_rate(store: ImageStore) -> None:
    once = ImageStore(small_store(store.file.parent / "once.arrow", classes=4, images=2).file)
    rates = [
        trained(once, "standard", epochs=1, learning_rate=rate, schedule=schedule)[0]
        for rate, schedule in ((2e-3, "one_cycle"), (2e-3, "constant"), (2e-9, "constant"))
    ]
    assert same(rates[0], rates[1])
    assert not same(rates[0], rates[2])


def test_parameters_of_the_loss_are_trained_too(store: ImageStore) -> None:
    class Centred(MultiSimilarityLoss):
        def __init__(self) -> None:
            super().__init__()
            self.centre = nn.Parameter(torch.zeros(6))

        def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
            return super().forward(embeddings - self.centre, labels)

    loss = Centred()
    trained(store, "standard", loss=loss)
    assert loss.centre.abs().min() > 0


def test_weight_decay_reaches_the_optimiser(store: ImageStore) -> None:
    assert not same(trained(store, "standard")[0], trained(store, "standard", weight_decay=0.1)[0])


class Centred(MultiSimilarityLoss):
    """A loss with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.full((6,), 0.1))

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        return super().forward(embeddings - self.centre, labels)


GROUPS = {
    "head": lambda name: "fc" in name,
    "clean_batchnorm": lambda name: "bn" in name and "clean" in name,
    "auxiliary_batchnorm": lambda name: "bn" in name and "target" in name,
    "loss": lambda name: name == "centre",
}


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("schedule", ["constant", "one_cycle"])
def test_a_rate_of_zero_leaves_its_group_as_it_was(store: ImageStore, group: str, schedule: str) -> None:
    torch.manual_seed(0)
    start = build_model("conv4", 6, branches=METHODS["mdprop"].branches, mean=[0.5], std=[0.25])
    loss = Centred()
    before = {**dict(start.named_parameters()), **dict(loss.named_parameters())}
    before = {name: value.detach().clone() for name, value in before.items()}
    model, _ = trained(store, loss=loss, learning_rates={group: 0.0}, schedule=schedule)
    after = {**dict(model.named_parameters()), **dict(loss.named_parameters())}
    still = {name for name, value in after.items() if torch.equal(value, before[name])}
    assert still == {name for name in after if GROUPS[group](name)}


def test_a_rate_of_none_is_the_common_one(store: ImageStore) -> None:
    same_rates = dict.fromkeys(GROUPS, 1e-2)
    assert same(trained(store)[0], trained(store, learning_rates=dict.fromkeys(GROUPS))[0])
    assert same(trained(store)[0], trained(store, learning_rates=same_rates)[0])


def test_parameters_of_the_loss_do_not_decay(store: ImageStore) -> None:
    class Idle(MultiSimilarityLoss):
        def __init__(self) -> None:
            super().__init__()
            self.idle = nn.Parameter(torch.ones(3))

        def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
            return super().forward(embeddings, labels) + 0 * self.idle.sum()

    loss = Idle()
    trained(store, "standard", loss=loss, weight_decay=0.5)
    assert torch.equal(loss.idle, torch.ones(3))


# --- head first, no epochs, and what happens before the first ---


def test_first_the_head_alone_learns(store: ImageStore) -> None:
    start = build_as_trained("mdprop")
    early, _ = trained(store, epochs=2, head_epochs=2, schedule="one_cycle")
    moved = {key for key, value in early.state_dict().items() if not torch.equal(value, start[key])}
    assert moved == {"network.fc.weight", "network.fc.bias"}
    later, losses = trained(store, epochs=3, head_epochs=2, schedule="one_cycle")
    moved = {key for key, value in later.state_dict().items() if not torch.equal(value, start[key])}
    assert moved == set(start)
    assert len(losses) == 3
    counted = later.network.blocks[0].bn.branches.clean.num_batches_tracked
    assert int(counted) == len(loader(store))
    whole, _ = trained(store, epochs=3, schedule="one_cycle")
    assert not same(whole, later)


def test_no_epochs_leave_the_network_as_it_starts(store: ImageStore) -> None:
    for schedule in ("one_cycle", "constant"):
        model, losses = trained(store, epochs=0, schedule=schedule)
        assert losses == [] and not model.training
        start = build_as_trained("mdprop")
        assert all(torch.equal(value, start[key]) for key, value in model.state_dict().items())


def test_what_is_drawn_before_the_first_epoch_does_not_count(store: ImageStore) -> None:
    class Dropping(MultiSimilarityLoss):
        def forward(self, embeddings: Tensor, labels: Tensor, mined: Any = None) -> Tensor:
            return super().forward(nn.functional.dropout(embeddings, 0.3), labels)

    def run(before: Callable[[Embedder], Mapping[str, float]]) -> Embedder:
        torch.manual_seed(0)
        model = build_model("conv4", 6, mean=[0.5], std=[0.25])
        settings = train_settings()
        return train(
            model,
            Dropping(),
            METHODS["standard"],
            loader(store),
            settings,
            None,
            0,
            before=lambda: before(model),
        )

    def draws(model: Embedder) -> Mapping[str, float]:
        model.eval()
        return {"x": float(torch.rand(5).sum())}

    assert same(run(draws), run(lambda model: {}))


def build_as_trained(method: str) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return build_model("conv4", 6, branches=METHODS[method].branches, mean=[0.5], std=[0.25]).state_dict()
