from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import load_file

from mdprop.errors import ModelError
from mdprop.files import read_sealed_json, sealed_json
from mdprop.layers import extract_branch, route
from mdprop.models import Embedder, build_model, export_network, files, load_model, place, save_model
from mdprop.seals import sealed_as
from tests.helpers import randomize_norms

WEIGHTS = "of the model at hand"
BRANCHES = ("clean", "single_target", "multi_target")


def trained(backbone: str = "conv4", branches: tuple[str, ...] = BRANCHES, **options: Any) -> Embedder:
    """A network in which each branch is another."""
    torch.manual_seed(0)
    model = build_model(backbone, 5, branches=branches, **{"mean": [0.5], "std": [0.25], **options})
    randomize_norms(model)
    return model.eval()


def save(model: Embedder, folder: Path, backbone: str = "conv4", **details: Any) -> Path:
    save_model(model, folder, backbone=backbone, embedding_dim=5, details=details)
    return folder


@pytest.mark.parametrize("branches", [("clean",), ("clean", "single_target"), BRANCHES])
def test_what_was_saved_is_loaded_bit_by_bit(tmp_path: Path, branches: tuple[str, ...]) -> None:
    model = trained(branches=branches)
    loaded = load_model(save(model.train(), tmp_path / "new" / "model"))
    images = torch.rand(3, 1, 28, 28)
    assert not loaded.training
    place(model, "cpu").eval()
    outputs = []
    for branch in branches:
        with route(model, branch), route(loaded, branch):
            outputs.append(model(images))
            assert torch.equal(loaded(images), outputs[-1])
    assert all(not torch.equal(outputs[0], other) for other in outputs[1:])
    state = loaded.state_dict()
    assert all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert len(state) == len(model.state_dict())


@pytest.mark.parametrize("mean", [[0.485, 0.456, 0.406], [0.48512345, 1 / 3, 2 / 3], [0.0, 1e-9, 1.0]])
def test_the_normalisation_is_loaded_bit_by_bit(tmp_path: Path, mean: list[float]) -> None:
    model = trained(mean=mean, std=[0.229, 1 / 7, 0.225])
    loaded = load_model(save(model, tmp_path))
    assert torch.equal(loaded.mean, model.mean)
    assert torch.equal(loaded.std, model.std)


def test_the_description(tmp_path: Path) -> None:
    save(trained(), tmp_path, method="mdprop", seed=3, parameters={"train": {"epochs": 2}})
    text = (tmp_path / "model.json").read_text()
    description = read_sealed_json(tmp_path / "model.json", "")
    assert description.pop("build") == {
        "backbone": "conv4",
        "embedding_dim": 5,
        "branches": list(BRANCHES),
        "mean": [0.5],
        "std": [0.25],
    }
    assert description.pop("weights") == sealed_as(tmp_path / "model.safetensors")
    assert description == {"method": "mdprop", "seed": 3, "parameters": {"train": {"epochs": 2}}}
    assert text.endswith("}\n")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.json", "model.safetensors"]


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(trained(), tmp_path / name, method="mdprop")
    for name in ("model.json", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_channels_last_model_is_loaded_bit_by_bit(tmp_path: Path) -> None:
    model = trained()
    loaded = load_model(save(model.to(memory_format=torch.channels_last), tmp_path))
    state = model.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in loaded.state_dict().items())


@pytest.mark.parametrize("freeze", ["clean", "all"])
def test_how_training_began_is_no_part_of_the_network(tmp_path: Path, freeze: str) -> None:
    """Neither weights to start from nor frozen batch norms are needed, or kept, to load a model."""
    start = tmp_path / "start.safetensors"
    export_network(save(trained(), tmp_path / "first"), start)
    model = trained(weights=str(start), freeze_batchnorm=freeze)
    save(model, tmp_path / "second", weights=str(start))
    start.unlink()
    loaded = load_model(tmp_path / "second")
    images = torch.rand(2, 1, 28, 28)
    assert torch.equal(loaded(images), place(model, "cpu")(images))
    assert loaded.freeze_batchnorm == "none"
    assert all(parameter.requires_grad for parameter in loaded.parameters())


# --- models that cannot be loaded ---


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_a_missing_file(tmp_path: Path, name: str) -> None:
    save(trained(), tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(
        ModelError, match=rf"^no model in {tmp_path}: {tmp_path}/{name} is missing; train it first$"
    ):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{}",
        "[]",
        '{"build": {"backbone": "conv4", "embedding_dim": 5}}',
        b"\xff\xfe",
        *(
            sealed_json(content)
            for content in (
                {},
                {"build": 1},
                {"build": {}},
                {"build": {"backbone": "conv4", "embedding_dim": 5, "depth": 4}, "weights": WEIGHTS},
                {"build": {"backbone": "conv4", "embedding_dim": "five"}, "weights": WEIGHTS},
                {"build": {"backbone": "conv4", "embedding_dim": 5}, "weights": "a" * 64},
            )
        ),
    ],
)
def test_a_damaged_description(tmp_path: Path, text: str | bytes) -> None:
    save(trained(), tmp_path)
    content = text.encode() if isinstance(text, str) else text
    if WEIGHTS.encode() in content:
        description = json.loads(content) | {"weights": sealed_as(tmp_path / "model.safetensors")}
        content = sealed_json(description).encode()
    (tmp_path / "model.json").write_bytes(content)
    with pytest.raises(ModelError, match=rf"^[^:]*{tmp_path}.* train it again$") as e:
        load_model(tmp_path)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_weights(tmp_path: Path, share: float) -> None:
    path = save(trained(), tmp_path) / "model.safetensors"
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ModelError, match=rf"^{path} is damaged.*; train it again$"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("embedding_dim", 6), ("branches", ["clean"]), ("backbone", "resnet18"), ("branches", ["clean", "own"])],
)
def test_weights_of_another_network(tmp_path: Path, key: str, value: Any) -> None:
    path = save(trained(), tmp_path) / "model.json"
    description = read_sealed_json(path, "")
    description["build"][key] = value
    path.write_text(sealed_json(description))
    with pytest.raises(ModelError, match=rf"^the weights in {tmp_path} do not fit its model\.json: ") as e:
        load_model(tmp_path)
    assert "\n" not in str(e.value)


def test_weights_of_another_training(tmp_path: Path) -> None:
    save(trained(), tmp_path / "a")
    save(randomize_norms(trained(), 1), tmp_path / "b")
    (tmp_path / "b" / "model.safetensors").replace(tmp_path / "a" / "model.safetensors")
    with pytest.raises(
        ModelError, match=r"safetensors is not the file that model\.json names; train it again$"
    ):
        load_model(tmp_path / "a")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_neither_written_nor_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    model = trained()
    next(model.parameters()).data.view(-1)[3] = value
    message = r"blocks\.0\.conv\.weight is not finite.*: the training diverged; train again with a lower"
    with pytest.raises(ModelError, match=message):
        save(model, tmp_path / "new")
    assert list(tmp_path.iterdir()) == []
    with monkeypatch.context() as blind:
        blind.setattr(files, "broken_tensor", lambda state: None)
        save(model, tmp_path / "old")
    with pytest.raises(ModelError, match=message):
        load_model(tmp_path / "old")


def test_a_failure_to_write_keeps_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(trained(), tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    model = trained(branches=("clean",))
    with pytest.raises(TypeError, match="not JSON serializable"):
        save(model, tmp_path, unknown=object())
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


# --- export ---


def load_export(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("branch", ["clean", "multi_target"])
def test_an_export_is_the_branch_by_plain_keys(tmp_path: Path, suffix: str, branch: str) -> None:
    model = trained()
    out = tmp_path / "new" / f"network{suffix}"
    export_network(save(model, tmp_path), out, branch)
    state = load_export(out)
    expected = extract_branch(model.network, branch).state_dict()
    assert set(state) == set(expected)
    assert all(torch.equal(state[key], value) for key, value in expected.items())
    assert [p.name for p in out.parent.iterdir()] == [out.name]


def test_an_exported_resnet_loads_into_torchvision(tmp_path: Path) -> None:
    model = trained("resnet18", ("clean", "single_target"), mean=[0.5] * 3, std=[0.2] * 3)
    export_network(save(model, tmp_path, "resnet18"), tmp_path / "clean.pth")
    network = torchvision.models.get_model("resnet18", weights=None, num_classes=5)
    network.load_state_dict(load_export(tmp_path / "clean.pth"), strict=True)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        embeddings = network.eval()((images - model.mean) / model.std)
        assert torch.equal(torch.nn.functional.normalize(embeddings, dim=-1), model(images))


def test_what_cannot_be_exported(tmp_path: Path) -> None:
    folder = save(trained(), tmp_path / "model")
    with pytest.raises(ModelError, match=r"network\.onnx: write to a \.safetensors or a \.pth file$"):
        export_network(folder, tmp_path / "network.onnx")
    with pytest.raises(
        ModelError,
        match=rf"^{folder}: no batch-norm branch 'own'; there are: clean, single_target, multi_target$",
    ):
        export_network(folder, tmp_path / "network.pth", "own")
    with pytest.raises(ModelError, match=r"^no model in "):
        export_network(tmp_path / "none", tmp_path / "network.pth")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model"]
