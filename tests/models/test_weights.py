from __future__ import annotations

import math
import pickle
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor
from torch.testing import assert_close
from torchvision.models import ResNet18_Weights, get_model_weights

from mdprop.errors import ModelError
from mdprop.layers import extract_branch
from mdprop.models import build_model, export_network, save_model
from mdprop.models.build import RESNETS
from mdprop.models.weights import load_weights, read_state
from tests.helpers import randomize_norms

BRANCHES = ("clean", "single_target", "multi_target")
URL = ResNet18_Weights.IMAGENET1K_V1.url


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """A ResNet-18 with a head of 10 classes, as a state dict."""
    torch.manual_seed(1)
    return randomize_norms(torchvision.models.resnet18(num_classes=10)).state_dict()


def without_head(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.startswith("fc.")}


def write(path: Path, content: Any) -> str:
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return str(path)


def error_of(backbone: str, weights: str, dim: int = 4) -> str:
    with pytest.raises(ModelError, match=r"^model\.weights") as caught:
        build_model(backbone, dim, weights=weights)
    text = str(caught.value)
    assert "\n" not in text
    return text


# --- files ---


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("w.safetensors", dict),
        ("w.pth", dict),
        ("w.pt", dict),
        ("W.PTH", dict),
        ("w.pth", lambda state: {"state_dict": state, "epoch": 3}),
        ("w.pth", lambda state: {"model": state, "args": "a string"}),
        ("w.pth", lambda state: {f"module.{key}": value for key, value in state.items()}),
        ("w.pth", lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}}),
        ("w.pth", lambda state: {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}),
        (
            "w.pth",
            lambda state: {
                k: torch.nn.Parameter(v) if v.is_floating_point() else v for k, v in state.items()
            },
        ),
        ("w.safetensors", without_head),
        ("w.safetensors", lambda state: {f"module.{key}": value for key, value in state.items()}),
    ],
)
def test_all_but_the_head_is_loaded(
    tmp_path: Path, published: dict[str, Tensor], name: str, wrap: Callable[[Any], Any]
) -> None:
    path = write(tmp_path / name, wrap(published))
    torch.manual_seed(5)
    network = build_model("resnet18", 10, weights=path).network
    state = network.state_dict()
    for key, value in without_head(published).items():
        assert torch.equal(state[key], value), key
    torch.manual_seed(5)
    assert torch.equal(state["fc.weight"], build_model("resnet18", 10).network.state_dict()["fc.weight"])


def test_a_file_of_old_torch(tmp_path: Path, published: dict[str, Tensor]) -> None:
    torch.save(published, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    state = build_model("resnet18", 4, weights=str(tmp_path / "old.pth")).network.state_dict()
    assert all(torch.equal(state[key], value) for key, value in without_head(published).items())


def test_every_branch_starts_as_a_full_copy(tmp_path: Path, published: dict[str, Tensor]) -> None:
    path = write(tmp_path / "w.safetensors", published)
    model = build_model("resnet18", 4, weights=path, branches=BRANCHES)
    for branch in BRANCHES:
        state = extract_branch(model.network, branch).state_dict()
        assert all(torch.equal(state[key], value) for key, value in without_head(published).items())


def test_grey_images_with_weights_for_colour(tmp_path: Path, published: dict[str, Tensor]) -> None:
    path = write(tmp_path / "w.pth", published)
    model = build_model("resnet18", 4, weights=path, mean=[0.5], std=[0.25]).eval()
    grey = torch.rand(2, 1, 32, 32)
    x = ((grey - 0.5) / 0.25).repeat(1, 3, 1, 1)
    assert_close(model(grey), torch.nn.functional.normalize(model.network(x), dim=1))


def test_the_home_folder(
    tmp_path: Path, published: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "w.pth", published)
    state = build_model("resnet18", 4, weights="~/w.pth").network.state_dict()
    assert torch.equal(state["conv1.weight"], published["conv1.weight"])


def changed_weight(**how: Any) -> dict[str, Tensor]:
    """The state of a conv4 whose first weight is another."""
    state = build_model("conv4", 4).network.state_dict()
    first = state["blocks.0.conv.weight"]
    return state | {"blocks.0.conv.weight": torch.full(first.shape, **how)}


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 1e300])
def test_values_that_are_not_finite(tmp_path: Path, number: float) -> None:
    path = write(tmp_path / "w.safetensors", changed_weight(fill_value=number, dtype=torch.float64))
    message = r"w\.safetensors holds values in blocks\.0\.conv\.weight that are not finite; use another"
    assert re.search(message, error_of("conv4", path))


def test_variances_below_0(tmp_path: Path) -> None:
    state = build_model("conv4", 4).network.state_dict()
    state["blocks.2.bn.running_var"][3] = -1e-6
    message = error_of("conv4", write(tmp_path / "w.pth", state))
    assert "holds variances in blocks.2.bn.running_var that are below 0; use another file" in message


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool, torch.complex64])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_values_of_another_kind(tmp_path: Path, dtype: torch.dtype, suffix: str) -> None:
    path = write(tmp_path / f"w{suffix}", changed_weight(fill_value=1, dtype=dtype))
    kind = str(dtype).removeprefix("torch.")
    assert f"of another kind: blocks.0.conv.weight {kind} strided" in error_of("conv4", path)


@pytest.mark.parametrize("make", [Tensor.to_sparse, lambda x: x.to("meta")], ids=["sparse", "meta"])
def test_values_that_are_not_there(tmp_path: Path, make: Callable[[Tensor], Tensor]) -> None:
    state = build_model("conv4", 4).network.state_dict()
    state["blocks.0.conv.weight"] = make(state["blocks.0.conv.weight"])
    path = write(tmp_path / "w.pth", state)
    assert "of another kind: blocks.0.conv.weight float32" in error_of("conv4", path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_values_of_another_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    path = write(tmp_path / "w.pth", changed_weight(fill_value=0.5, dtype=dtype))
    state = build_model("conv4", 4, weights=path).network.state_dict()
    assert (state["blocks.0.conv.weight"] == 0.5).all()


def test_an_empty_file_says_something(tmp_path: Path) -> None:
    (tmp_path / "w.pth").touch()
    assert "cannot be read (EOFError)" in error_of("conv4", str(tmp_path / "w.pth"))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_export_wrote(tmp_path: Path, suffix: str) -> None:
    torch.manual_seed(2)
    trained = build_model("conv4", 5, branches=BRANCHES)
    randomize_norms(trained)
    save_model(trained, tmp_path, backbone="conv4", embedding_dim=5)
    export_network(tmp_path, tmp_path / f"clean{suffix}")
    loaded = build_model("conv4", 5, weights=str(tmp_path / f"clean{suffix}")).network.state_dict()
    expected = extract_branch(trained.network).state_dict()
    for key, value in expected.items():
        assert torch.equal(loaded[key], value) != key.startswith("fc."), key


def test_a_model_with_branches_is_not_a_start(tmp_path: Path) -> None:
    save_model(build_model("conv4", 5, branches=BRANCHES), tmp_path, backbone="conv4", embedding_dim=5)
    text = error_of("conv4", str(tmp_path / "model.safetensors"))
    assert "missing: blocks.0.bn.weight, " in text
    assert "unexpected: blocks.0.bn.branches." in text
    assert text.endswith("(several batch-norm branches: write one of them with mdprop export)")


def test_a_file_that_does_not_fit(tmp_path: Path, published: dict[str, Tensor]) -> None:
    state = {key: value for key, value in published.items() if not key.startswith("layer1.0")}
    state |= {"conv1.weight": torch.zeros(64, 1, 7, 7), "more": torch.zeros(1)}
    path = write(tmp_path / "w.pth", state)
    assert error_of("resnet18", path) == (
        f"model.weights: {path} does not fit resnet18: "
        "missing: layer1.0.conv1.weight, layer1.0.bn1.weight, layer1.0.bn1.bias and 7 more; "
        "unexpected: more; "
        "of another shape: conv1.weight (64, 1, 7, 7) for (64, 3, 7, 7)"
    )


def test_a_file_that_does_not_fit_changes_nothing(tmp_path: Path, published: dict[str, Tensor]) -> None:
    network = torchvision.models.resnet18(num_classes=4)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    path = write(tmp_path / "w.pth", {**published, "more": torch.zeros(1)})
    with pytest.raises(ModelError, match=r"does not fit resnet18: unexpected: more$"):
        load_weights(network, "resnet18", path)
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_no_such_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"none{suffix}"
    expected = f"model.weights: no file {path}; give another path, absolute for queued experiments"
    assert error_of("resnet18", str(path)) == expected
    path.mkdir()
    assert error_of("resnet18", str(path)) == expected


class Payload:
    """What a malicious file does when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("old", [False, True])
def test_a_file_of_more_than_tensors_is_not_unpickled(
    tmp_path: Path, published: dict[str, Tensor], old: bool
) -> None:
    path, mark = tmp_path / "w.pth", tmp_path / "executed"
    content = {"state_dict": published, "more": Payload(mark)}
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    assert error_of("resnet18", str(path)) == (
        f"model.weights: {path} is damaged, or holds more than tensors, which is not read for safety; "
        "save the network's state_dict() alone, or as .safetensors"
    )
    assert not mark.exists()


@pytest.mark.filterwarnings("error")
def test_a_pickle_that_torch_did_not_write_is_one_line_too(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(pickle.dumps({"state_dict": Payload(tmp_path / "executed")}, protocol=4))
    assert error_of("resnet18", str(path)).startswith(f"model.weights: {path} is damaged, or holds more")


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "old.pth"])
@pytest.mark.parametrize("share", [0.0, 0.0001, 0.5, 0.999])
def test_a_truncated_file(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    state = {"a": torch.zeros(200, 100), "b": torch.ones(3)}
    if name == "old.pth":
        torch.save(state, path, _use_new_zipfile_serialization=False)
    else:
        write(path, state)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert error_of("resnet18", str(path)).startswith(f"model.weights: {path} ")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("old", [False, True])
def test_flipped_bytes_are_read_or_refused(tmp_path: Path, old: bool) -> None:
    path, rng = tmp_path / "w.pth", random.Random(0)
    torch.save({"a": torch.zeros(3)}, path, _use_new_zipfile_serialization=not old)
    whole, refused = path.read_bytes(), 0
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            read_state(path)
        except ModelError as error:
            assert str(error).startswith(f"model.weights: {path} ")
            refused += 1
    assert 0 < refused < 200


@pytest.mark.parametrize(
    "content",
    [torch.zeros(3), [torch.zeros(3)], {"epoch": 3}, {"state_dict": {"lr": 0.1}}, {0: torch.zeros(1)}],
)
def test_a_file_without_a_state_dict(tmp_path: Path, content: Any) -> None:
    path = write(tmp_path / "w.pth", content)
    assert error_of("resnet18", path) == (
        f"model.weights: {path} holds no state dict, neither bare nor under 'state_dict' or 'model'"
    )


# --- names ---


def test_pretrained_is_the_papers_version_of_every_resnet() -> None:
    assert all("IMAGENET1K_V1" in get_model_weights(name).__members__ for name in RESNETS)


@pytest.mark.parametrize(
    ("weights", "url"),
    [
        ("pretrained", torchvision.models.ResNet50_Weights.IMAGENET1K_V1.url),
        ("IMAGENET1K_V1", torchvision.models.ResNet50_Weights.IMAGENET1K_V1.url),
        ("IMAGENET1K_V2", torchvision.models.ResNet50_Weights.IMAGENET1K_V2.url),
        ("DEFAULT", torchvision.models.ResNet50_Weights.IMAGENET1K_V2.url),
    ],
)
def test_torchvisions_weights_by_name(monkeypatch: pytest.MonkeyPatch, weights: str, url: str) -> None:
    """What the download returns is loaded, and is read without running code, its checksum compared."""
    torch.manual_seed(3)
    state = torchvision.models.resnet50(weights=None).state_dict()
    calls = []

    def download(*args: Any, **options: Any) -> dict[str, Tensor]:
        calls.append((args, options))
        return state

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    loaded = build_model("resnet50", 4, weights=weights).network.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in without_head(state).items())
    assert calls == [((url,), {"check_hash": True, "weights_only": True})]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (URLError("Name or service not known"), "<urlopen error Name or service not known>"),
        (HTTPError(URL, 403, "Forbidden", None, None), "HTTP Error 403: Forbidden"),
        (TimeoutError("timed out"), "timed out"),
    ],
)
def test_without_internet(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, reason: str
) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", refuse)
    assert error_of("resnet18", "pretrained") == (
        f"model.weights: {URL} cannot be downloaded ({reason}); without internet, download it elsewhere "
        "and give the file's path as model.weights"
    )
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_damaged_copy_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / Path(URL).name).write_bytes(b"half of it")
    text = error_of("resnet18", "IMAGENET1K_V1")
    assert text.startswith(f"model.weights 'IMAGENET1K_V1': the download of {URL} is damaged (")
    assert f"delete its copy in {tmp_path}/checkpoints" in text


def test_an_unknown_name_lists_those_of_the_backbone() -> None:
    assert error_of("resnet18", "IMAGENET1K_V2") == (
        "model.weights: unknown 'IMAGENET1K_V2' for resnet18; known: pretrained, IMAGENET1K_V1, DEFAULT, "
        "or a .pth, .pt or .safetensors file"
    )
    assert "known: pretrained, IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT, or" in error_of("resnet50", "imagenet")


@pytest.mark.parametrize("weights", ["pretrained", "IMAGENET1K_V1"])
def test_conv4_has_no_published_weights(weights: str) -> None:
    assert error_of("conv4", weights) == (
        f"model.weights '{weights}': conv4 has no published weights; "
        "null, or a .pth, .pt or .safetensors file"
    )


# --- timm ---


def test_timm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    name = "timm:test_efficientnet"
    assert "unknown 'IMAGENET1K_V1' for timm:test_efficientnet; known: pretrained, or" in error_of(
        name, "IMAGENET1K_V1"
    )
    state = randomize_norms(timm.create_model("test_efficientnet")).state_dict()
    loaded = build_model(name, 4, weights=write(tmp_path / "w.safetensors", state)).network.state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state if not key.startswith("classifier."))

    create, asked = timm.create_model, []

    def pretend(model: str, pretrained: bool = False, **options: Any) -> torch.nn.Module:
        asked.append(pretrained)
        network = create(model, **options)
        if pretrained:
            network.load_state_dict(state)
        return network

    monkeypatch.setattr(timm, "create_model", pretend)
    loaded = build_model(name, 1000, weights="pretrained").network.state_dict()
    assert asked == [False, True]
    for key, value in state.items():
        assert torch.equal(loaded[key], value) != (key == "classifier.weight"), key


def test_timm_without_internet(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model("test_efficientnet", num_classes=4)

    def refuse(*args: Any, **options: Any) -> None:
        raise OSError("no\nroute")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(
        ModelError,
        match=r"^model\.weights: https://huggingface\.co/timm/test_efficientnet\S+ cannot be downloaded "
        r"\(no route\); without internet, download it elsewhere and give the file's path as model\.weights$",
    ):
        load_weights(network, "timm:test_efficientnet", "pretrained")


def test_a_timm_model_without_published_weights() -> None:
    pytest.importorskip("timm")
    assert error_of("timm:efficientnet_lite1", "pretrained") == (
        "model.weights 'pretrained': timm has none for efficientnet_lite1; see timm.list_pretrained()"
    )
