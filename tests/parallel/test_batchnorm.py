"""Batch norm in two processes against one over the whole batch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.testing import assert_close

from mdprop.errors import ModelError
from mdprop.layers import MultiBatchNorm2d, multi_batchnorms, reset_statistics, route
from mdprop.models.parts import batchnorms, parameter_groups
from mdprop.parallel import batchnorm
from mdprop.parallel.batchnorm import SynchronizedBatchNorm, synchronize_batchnorm
from mdprop.parallel.exchange import share_gradients, world_size
from tests.helpers import small_embedder
from tests.parallel.together import Cases, Results, all_rows, numbered, own_rows

CASES = Cases()
IMAGES = numbered(6, 3, 4, 4)


def timm_layer() -> nn.Module:
    from timm.layers import BatchNormAct2d

    layer: nn.Module = BatchNormAct2d(3, act_layer=nn.SiLU)
    return layer


NORMS: dict[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "2d": lambda: (nn.BatchNorm2d(3), IMAGES),
    "channels last": lambda: (nn.BatchNorm2d(3), IMAGES.contiguous(memory_format=torch.channels_last)),
    "1d": lambda: (nn.BatchNorm1d(3), numbered(6, 3)),
    "sequence": lambda: (nn.BatchNorm1d(3), numbered(6, 3, 5)),
    "3d": lambda: (nn.BatchNorm3d(3), numbered(6, 3, 2, 2, 2)),
    "two images": lambda: (nn.BatchNorm1d(3), numbered(2, 3)),
    "large mean": lambda: (nn.BatchNorm2d(3), 1e4 + IMAGES),
    "momentum": lambda: (nn.BatchNorm2d(3, eps=0.1, momentum=0.7), IMAGES),
    "cumulative": lambda: (nn.BatchNorm2d(3, momentum=None), IMAGES),
    "no affine": lambda: (nn.BatchNorm2d(3, affine=False), IMAGES),
    "no statistics": lambda: (nn.BatchNorm2d(3, track_running_stats=False), IMAGES),
    "eval": lambda: (nn.BatchNorm2d(3).eval(), IMAGES),
    "bfloat16": lambda: (nn.BatchNorm2d(3), IMAGES.bfloat16()),
    "in a network": lambda: (nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU(True)), IMAGES),
    "frozen in a network": lambda: (nn.Sequential(nn.BatchNorm2d(3).eval(), nn.BatchNorm2d(3)), IMAGES),
    "shared": lambda: (nn.Sequential(*[nn.BatchNorm2d(3)] * 2), IMAGES),
    "synchronised by torch": lambda: (nn.SyncBatchNorm(3), IMAGES),
    "timm's, with an activation": lambda: (timm_layer(), IMAGES),
    "timm's, frozen": lambda: (timm_layer().eval(), IMAGES),
}


@CASES.case("norms")
def normalized(folder: Path) -> Any:
    found = {}
    for name, make in NORMS.items():
        norm, whole = make()
        norm = norm.to(torch.promote_types(whole.dtype, torch.float32))
        for i, parameter in enumerate(norm.parameters()):
            parameter.data.copy_(numbered(*parameter.shape, seed=i))
        norm = synchronize_batchnorm(norm)
        x = own_rows(whole).requires_grad_()
        for _ in range(2):
            y = norm(x)
        (y.square() * own_rows(numbered(*whole.shape, seed=6))).sum().backward()
        share_gradients(norm.parameters())
        assert x.grad is not None
        rows = [all_rows(y.detach()), all_rows(x.grad)]
        found[name] = [*rows, norm.state_dict(), [p.grad for p in norm.parameters()]]
    return found


@pytest.mark.parametrize("name", NORMS)
def test_it_is_that_of_the_whole_batch(both: list[Results], alone: Results, name: str) -> None:
    for results in both:
        tolerance: Any = {"rtol": 0.02, "atol": 0.02} if name == "bfloat16" else {"rtol": 1e-7, "atol": 1e-9}
        assert_close(results["norms"][name], alone["norms"][name], **tolerance)


@CASES.case("autocast")
def in_half_precision(folder: Path) -> Any:
    """A convolution gives bfloat16 under autocast, statistics and parameters stay float32."""
    torch.manual_seed(0)
    network = synchronize_batchnorm(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)))
    x = own_rows(IMAGES.float()).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        y = network(x)
    y.float().square().sum().backward()
    share_gradients(network.parameters())
    assert y.dtype == torch.bfloat16 and x.grad is not None
    return [all_rows(y.detach()), network.state_dict(), [p.grad for p in network.parameters()]]


def test_under_autocast(both: list[Results], alone: Results) -> None:
    for results in both:
        y, state, gradients = results["autocast"]
        expected, expected_state, expected_gradients = alone["autocast"]
        assert_close(y, expected, rtol=0.02, atol=0.02)
        assert_close(state, expected_state, rtol=1e-3, atol=1e-4)
        assert all(g.dtype == torch.float32 for g in gradients)
        assert_close(gradients[2:], expected_gradients[2:], rtol=0.02, atol=0.05)


ROUTES = {"clean": 6, "near": 4, "far": 2}


@CASES.case("branches")
def routed(folder: Path) -> Any:
    layer = MultiBatchNorm2d(3, tuple(ROUTES)).double()
    parts = torch.split(numbered(12, 3, 4, 4), list(ROUTES.values()))
    x = torch.cat([own_rows(part) for part in parts]).requires_grad_()
    synchronize_batchnorm(layer)
    layer.branches["far"].eval()
    with route(layer, {name: size // world_size() for name, size in ROUTES.items()}):
        y = layer(x)
    y.pow(3).sum().backward()
    share_gradients(layer.parameters())
    assert x.grad is not None
    sizes = [size // world_size() for size in ROUTES.values()]
    rows = [[all_rows(part) for part in t.split(sizes)] for t in (y.detach(), x.grad)]
    return [rows, layer.state_dict(), [p.grad for p in layer.parameters()]]


def test_each_branch_has_the_statistics_of_its_own_slice(both: list[Results], alone: Results) -> None:
    for results in both:
        assert_close(results["branches"], alone["branches"], rtol=1e-9, atol=1e-11)
    state = both[0]["branches"][1]
    assert state["branches.far.num_batches_tracked"] == 0
    assert not torch.equal(state["branches.clean.running_mean"], state["branches.near.running_mean"])


class Scaled(nn.BatchNorm2d):
    """A layer whose forward is its own."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * F.batch_norm(x, None, None, self.weight, self.bias, True, 0.1, self.eps)


@CASES.case("unknown")
def unknown_class(folder: Path) -> Any:
    try:
        synchronize_batchnorm(nn.Sequential(Scaled(3)))
    except ModelError as error:
        return str(error)
    return None


def test_what_is_not_known_to_normalise_first_is_refused(both: list[Results], alone: Results) -> None:
    said = "model.backbone: several processes cannot share batch norms of class Scaled; "
    assert all(results["unknown"].startswith(said) for results in both)
    assert alone["unknown"] is None


# --- what becomes of a model; nothing is exchanged until it runs ---


@pytest.fixture
def two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batchnorm, "world_size", lambda: 2)


def test_one_process_keeps_its_layers() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3))
    norm = model[0]
    assert synchronize_batchnorm(model) is model
    assert model[0] is norm and type(norm) is nn.BatchNorm2d


@pytest.mark.usefixtures("two_processes")
def test_a_model_keeps_its_keys_parameters_and_buffers() -> None:
    model = small_embedder(("clean", "near"))
    state, parameters = model.state_dict(keep_vars=True), list(model.parameters())
    groups = parameter_groups(model)
    assert synchronize_batchnorm(model) is model
    new = model.state_dict(keep_vars=True)
    assert list(new) == list(state)
    assert all(new[key] is state[key] for key in state)
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    norms = [norm for norm in model.modules() if isinstance(norm, _BatchNorm)]
    assert len(norms) == 8 and {type(norm) for norm in norms} == {SynchronizedBatchNorm}
    for name, members in parameter_groups(model).items():
        assert all(a is b for a, b in zip(members, groups[name], strict=True))
    assert [clean for _, clean in batchnorms(model)] == [True, False] * 4
    copied = copy.deepcopy(model)
    assert all(torch.equal(copied.state_dict()[key], state[key]) for key in state)


@pytest.mark.usefixtures("two_processes")
def test_modes_and_resets_reach_the_layers() -> None:
    model = small_embedder(("clean", "near")).eval()
    synchronize_batchnorm(model)
    layer = multi_batchnorms(model)[0]
    norms = [layer.branches["clean"], layer.branches["near"]]
    assert not norms[0].training and model.train() is model and norms[0].training
    reset_statistics(model, but="clean")
    assert norms[0].running_mean.any() and not norms[1].running_mean.any()


@pytest.mark.usefixtures("two_processes")
def test_in_eval_mode_nothing_is_exchanged() -> None:
    for norm in (nn.BatchNorm2d(3), timm_layer(), nn.BatchNorm2d(3, track_running_stats=False)):
        norm.eval()
        expected = norm(IMAGES.float())
        synchronized = synchronize_batchnorm(norm)
        assert type(synchronized) is SynchronizedBatchNorm
        assert torch.equal(synchronized(IMAGES.float()), expected)


@pytest.mark.usefixtures("two_processes")
def test_twice_is_once_and_shared_layers_stay_shared() -> None:
    norm = nn.BatchNorm2d(3)
    network = nn.ModuleDict({"a": nn.Sequential(norm, norm), "b": norm})
    synchronize_batchnorm(network)
    first = network["b"]
    assert network["a"][0] is network["a"][1] is first is not norm
    synchronize_batchnorm(network)
    assert network["a"][0] is network["b"] is first


@pytest.mark.usefixtures("two_processes")
def test_inputs_of_too_few_dimensions_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 2D input"):
        synchronize_batchnorm(nn.BatchNorm1d(3))(torch.zeros(3))
