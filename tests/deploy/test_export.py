"""Exports: what plain code makes of them, and that none is written that finds other neighbours."""

from __future__ import annotations

import json
import re
import types
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from mdprop.data.loading.datasets import store_batches
from mdprop.data.loading.transforms import test_transform as as_tested
from mdprop.data.prepare import prepare
from mdprop.data.readers.folder import Settings
from mdprop.data.stores.images import ImageStore
from mdprop.deploy import export, export_model
from mdprop.deploy.agreement import Agreement, generated_images
from mdprop.errors import ModelError
from mdprop.metrics.neighbours import nearest_neighbours
from mdprop.models import build_model, load_model, save_model
from mdprop.robustness.embedding import embedded
from tests.deploy.conftest import draw, draw_folder, save_trained
from tests.test_docs import fences, table

needs_onnx = pytest.mark.skipif(find_spec("onnxruntime") is None, reason="onnxruntime is not installed")
FAMILIES = {
    "conv4": "Conv4",
    "resnet18": "get_model",
    "efficientnet_lite0": "EfficientNet",
    "timm:resnet18": "timm",
}


def documented(*words: str) -> str:
    """The code of docs/deploy.md that holds all these words."""
    (code,) = (f for f in fences("docs/deploy.md", "python") if all(word in f for word in words))
    return code


def run(code: str, names: dict[str, Any]) -> None:
    exec(compile(code, "docs/deploy.md", "exec"), names)


def preprocessed(exported: Path, paths: Sequence[Path]) -> torch.Tensor:
    """A batch by the documented code."""
    code = documented("def pixels").replace("model.safetensors", str(exported)).split("\n\nbatch =")[0]
    names: dict[str, Any] = {}
    run(code, names)
    return torch.stack([names["pixels"](path) for path in paths])


def pipeline(
    run_folder: Path, root: Path, work: Path, mode: str, encoding: str = "raw", branch: str = "clean"
) -> tuple[list[Path], torch.Tensor, NDArray[np.float32]]:
    """What the pipeline makes of root/test: the files, their pixels and their embeddings."""
    settings = Settings(
        reader="folder",
        root=str(root),
        mode=mode,
        resize=32,
        image_size=28,
        encoding=encoding,
        crop_scale=(0.5, 1.0),
        flip=True,
        mean=(0.5,) * (1 if mode == "L" else 3),
        std=(0.5,) * (1 if mode == "L" else 3),
    )
    prepare("photos", settings, work / "prepared")
    store = ImageStore(work / "prepared" / "test.arrow")
    files = [root / store.path(row) for row in range(len(store))]
    batches = list(store_batches(store, as_tested(32, 28)))
    model = load_model(run_folder, branch=branch)
    vectors = np.concatenate([v for _, _, v in embedded(model, batches, torch.device("cpu"))])
    return files, torch.cat([images for _, _, images in batches]), vectors


def share_alike(ours: NDArray[np.float32], theirs: NDArray[np.float32], depth: int = 5) -> float:
    """Of the images, those with the same nearest neighbours in the same order."""
    first, second = (nearest_neighbours(found, depth) for found in (ours, theirs))
    return float((first == second).all(1).mean())


def photographs(root: Path, images: int) -> Path:
    """root/train, two classes, and root/test, four of so many images each."""
    draw_folder(root / "test", classes=4, images=images)
    for kind in (8, 9):
        for number in range(2):
            file = root / "train" / f"kind{kind}" / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            draw(number, kind=kind).save(file)
    return root


# --- preprocessing ---


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt2"])
def test_torchvision_rebuilds_the_pixels_of_the_pipeline(tmp_path: Path, mode: str, suffix: str) -> None:
    """Also of photographs that are turned by EXIF, grey, in a palette, long and thin."""
    root, exif, other = photographs(tmp_path / "photos", images=6), Image.Exif(), draw(9, (61, 47), 7)
    exif[0x0112] = 6
    other.save(root / "test" / "kind0" / "turned.jpg", exif=exif)
    other.convert("L").save(root / "test" / "kind1" / "grey.png")
    other.quantize(16).save(root / "test" / "kind1" / "palette.png")
    draw(3, (19, 90)).save(root / "test" / "kind2" / "thin.png")
    folder = save_trained(tmp_path / "run", mode=mode, encoding="raw")
    export_model(folder, tmp_path / f"net{suffix}")
    files, images, _ = pipeline(folder, root, tmp_path, mode)
    assert len(files) == 28
    expected = images if suffix == ".pt2" else normalised(folder, images)
    assert torch.equal(preprocessed(tmp_path / f"net{suffix}", files), expected)


def normalised(folder: Path, images: torch.Tensor) -> torch.Tensor:
    model = load_model(folder)
    return (images - model.mean) / model.std


def test_torchvision_rebuilds_the_jpegs_that_preparation_makes(tmp_path: Path) -> None:
    """Some fit as they are, and keep their bytes."""
    root = photographs(tmp_path / "photos", images=6)
    draw(7, (32, 41)).save(root / "test" / "kind0" / "fits.jpg", quality=60)
    folder = save_trained(tmp_path / "run")
    export_model(folder, tmp_path / "net.pt2")
    files, images, _ = pipeline(folder, root, tmp_path, "RGB", "compressed")
    rebuilt = preprocessed(tmp_path / "net.pt2", files)
    assert torch.equal(rebuilt, images)
    record = tmp_path / "net.pt2.preprocessing.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"jpeg": None}))
    apart = (preprocessed(tmp_path / "net.pt2", files) - images).abs().amax((1, 2, 3))
    resized = torch.tensor([file.suffix == ".jpg" and file.stem != "fits" for file in files])
    assert torch.equal(apart > 0, resized)
    assert apart.max() < 24 / 255


def test_the_record_says_what_each_kind_of_file_does_itself(tmp_path: Path) -> None:
    folder = save_trained(tmp_path / "run", "resnet18", mode="L", encoding="raw", image_size=20)
    for suffix in (".pth", ".pt2"):
        export_model(folder, tmp_path / f"net{suffix}", "multi_target")
    state, program = (
        json.loads((tmp_path / f"net{suffix}.preprocessing.json").read_text()) for suffix in (".pth", ".pt2")
    )
    differ = {key for key in state if state[key] != program[key]}
    assert differ == {"file", "channels", "normalized_inside", "unit_length_inside"}
    assert (state["channels"], program["channels"]) == (3, 1)
    assert (state["normalized_inside"], program["unit_length_inside"]) == (False, True)
    assert (state["branch"], state["backbone"], state["jpeg"]) == ("multi_target", "resnet18", None)
    described = {
        key for row in table("docs/deploy.md", "key", "meaning") for key in re.findall(r"`(\w+)`", row[0])
    }
    assert set(state) == described


# --- networks ---


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("backbone", FAMILIES)
def test_the_documented_code_loads_every_family(tmp_path: Path, backbone: str, mode: str) -> None:
    for package in ("timm", "efficientnet_lite_pytorch"):
        if FAMILIES[backbone].lower() in package:
            pytest.importorskip(package)
    root = photographs(tmp_path / "photos", images=10)
    folder = save_trained(tmp_path / "run", backbone, mode=mode, encoding="raw")
    export_model(folder, tmp_path / "net.safetensors", "multi_target")
    files, _, expected = pipeline(folder, root, tmp_path, mode, branch="multi_target")
    names: dict[str, Any] = {
        "torch": torch,
        "p": json.loads((tmp_path / "net.safetensors.preprocessing.json").read_text()),
        "batch": preprocessed(tmp_path / "net.safetensors", files),
    }
    run(documented(f"{FAMILIES[backbone]}", "network ="), names)
    run(documented("load_file(").replace("model.safetensors", str(tmp_path / "net.safetensors")), names)
    assert type(names["network"]) is not nn.Sequential
    assert np.allclose(names["embeddings"], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("backbone", "suffix"),
    [
        ("conv4", ".pt2"),
        ("resnet18", ".pt2"),
        pytest.param("efficientnet_lite0", ".pt2", marks=pytest.mark.slow),
        pytest.param("timm:resnet18", ".pt2", marks=pytest.mark.slow),
        pytest.param("conv4", ".onnx", marks=needs_onnx),
        pytest.param("resnet18", ".onnx", marks=[needs_onnx, pytest.mark.slow]),
        pytest.param("efficientnet_lite0", ".onnx", marks=[needs_onnx, pytest.mark.slow]),
        pytest.param("timm:resnet18", ".onnx", marks=[needs_onnx, pytest.mark.slow]),
    ],
)
def test_programs_find_the_neighbours_of_the_pipeline_for_200_images(
    tmp_path: Path, backbone: str, suffix: str
) -> None:
    """By the documented code, in batches of other sizes; but where two are as near as each other."""
    root = photographs(tmp_path / "photos", images=50)
    folder = save_trained(tmp_path / "run", backbone, encoding="raw")
    export_model(folder, tmp_path / f"net{suffix}")
    files, _, expected = pipeline(folder, root, tmp_path, "RGB")
    assert len(files) == 200
    batch = preprocessed(tmp_path / f"net{suffix}", files)
    code = documented(f'"model{suffix}"').replace(f"model{suffix}", str(tmp_path / f"net{suffix}"))
    found = []
    for part in (batch[:1], batch[1:]):
        names: dict[str, Any] = {"torch": torch, "batch": part}
        run(code, names)
        found.append(torch.as_tensor(names["embeddings"]).detach())
    theirs = torch.cat(found).numpy()
    assert Agreement.of(expected, theirs).holds
    assert share_alike(expected, theirs) >= 0.99


# --- what is checked, and refused ---


@pytest.mark.parametrize("suffix", [".safetensors", ".pt2"])
def test_nothing_is_written_that_finds_other_neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """The writer is given another network than the one that is asked for."""
    folder = save_trained(tmp_path / "runs" / "run")
    other = save_trained(tmp_path / "runs" / "other", seed=1)
    write = export._WRITERS[suffix]
    place = {"folder": other}
    monkeypatch.setitem(export._WRITERS, suffix, lambda t, file: write(replace(t, **place), file))
    out = tmp_path / "out" / f"net{suffix}"
    out.parent.mkdir()
    out.write_bytes(b"earlier")
    with pytest.raises(ModelError, match=rf"^{out} is not written: the exported network finds other neigh"):
        export_model(folder, out)
    assert out.read_bytes() == b"earlier"
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_agreement_sees_a_swap_and_forgives_rounding() -> None:
    ours = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
    ours /= np.linalg.norm(ours, axis=1, keepdims=True)
    assert Agreement.of(ours, ours) == Agreement(40, 0.0, 0.0)
    noise = np.random.default_rng(1).normal(size=ours.shape).astype(np.float32)
    assert Agreement.of(ours, ours + 1e-6 * noise).holds
    assert not Agreement.of(ours, ours + 1e-2 * noise).holds
    assert not Agreement.of(ours, ours[::-1].copy()).holds
    assert not Agreement.of(ours, ours * np.float32(np.nan)).holds
    assert not Agreement.of(ours, ours[:, :5]).holds
    rotated = ours @ np.linalg.qr(noise[:6])[0].astype(np.float32)  # keeps neighbours, not embeddings
    assert Agreement.of(ours, rotated).misplaced < 1e-5
    assert not Agreement.of(ours, rotated).holds


def test_generated_images_are_pixels_and_differ() -> None:
    images = generated_images(3, 28)
    assert images.shape == (100, 3, 28, 28)
    assert images.min() >= 0 and images.max() <= 1
    assert len({image.numpy().tobytes() for image in images}) == 100
    assert torch.equal(images, generated_images(3, 28))


def test_an_export_leaves_two_files(tmp_path: Path) -> None:
    out = tmp_path / "new" / "net.pth"
    export_model(save_trained(tmp_path / "run"), out)
    assert sorted(p.name for p in out.parent.iterdir()) == ["net.pth", "net.pth.preprocessing.json"]


def test_what_cannot_be_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_trained(tmp_path / "run")
    forms = r"\.safetensors, \.pth, \.pt2, \.onnx"
    with pytest.raises(ModelError, match=rf"net\.tflite: write to a file that ends in one of {forms}$"):
        export_model(folder, tmp_path / "net.tflite")
    with pytest.raises(ModelError, match=r"none is no folder: give the folder of a trained model, such as "):
        export_model(tmp_path / "none", tmp_path / "net.pt2")
    with pytest.raises(ModelError, match=r"has no model\.json: give the folder of a trained model"):
        export_model(tmp_path, tmp_path / "net.pt2")
    with pytest.raises(ModelError, match=r"no batch-norm branch 'own'; there are: clean, multi_target$"):
        export_model(folder, tmp_path / "net.pt2", "own")
    (tmp_path / "net.pt2").mkdir()
    with pytest.raises(ModelError, match=r"net\.pt2 is a folder: give the name of a file$"):
        export_model(folder, tmp_path / "net.pt2")
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"^\.onnx needs onnx and onnxruntime and onnxscript: pip install "):
        export_model(folder, tmp_path / "net.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.pt2", "run"]


def test_a_network_that_no_exporter_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: nn.Module, images: torch.Tensor) -> torch.Tensor:
        return images[:, 0, : int(images.sum()), 0]  # a shape that values decide

    folder = save_trained(tmp_path / "run")
    trace = export._to_trace

    def broken(trained: Any) -> Any:
        model, *others = trace(trained)
        model.network.forward = types.MethodType(forward, model.network)
        return model, *others

    monkeypatch.setattr(export, "_to_trace", broken)
    with pytest.raises(ModelError, match=r"^torch\.export cannot export a conv4: ") as caught:
        export_model(folder, tmp_path / "net.pt2")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "net.pt2").exists()


def test_a_model_that_does_not_say_how_images_were_prepared(tmp_path: Path) -> None:
    model = build_model("conv4", 8)
    save_model(model, tmp_path / "run", backbone="conv4", embedding_dim=8)
    with pytest.raises(ModelError, match=r"model\.json does not say how images were prepared: one that "):
        export_model(tmp_path / "run", tmp_path / "net.pth")
