"""A trained model as a file for others, checked before it is there."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import textwrap
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mdprop.branches import CLEAN
from mdprop.data.loading.datasets import BATCH_SIZE
from mdprop.deploy.agreement import Agreement, generated_images
from mdprop.deploy.trained import Trained
from mdprop.errors import ModelError, disk_error, one_line
from mdprop.files import write_files
from mdprop.models import Embedder, build_model, export_network
from mdprop.models.weights import read_state
from mdprop.runtime.scratch import scratch_beside

STATES = (".safetensors", ".pth")
PROGRAMS = (".pt2", ".onnx")
INSTALL = 'pip install "mdprop[onnx]", or pip install -e ".[onnx]" in a checkout'

Network = Callable[[Tensor], Any]
"""[B, C, H, W] in [0, 1] -> [B, D] of unit norm, on the CPU."""


def preprocessing_file(out: Path) -> Path:
    """Where it is said what is done to images before they meet the exported network."""
    return out.with_name(f"{out.name}.preprocessing.json")


def export_model(folder: Path, out: Path, branch: str = CLEAN) -> Agreement:
    """Write one branch, or a mixture of two, for use without this package, and its preprocessing beside it.

    out: .safetensors or .pth: the plain network's state dict, see `export_network`; .pt2: a program of
        `torch.export`, .onnx: likewise for ONNX runtimes: both take batches of any number of pixels in
        [0, 1] and return embeddings of unit norm.

    The file is read again as its users do, and must find the neighbours that the model finds among
    generated images, before it gets its name. Raises `ModelError` where it does not, and for a model that
    cannot be had, or exported, and a package that is missing.
    """
    if out.suffix not in (*STATES, *PROGRAMS):
        raise ModelError(f"{out}: write to a file that ends in one of {', '.join((*STATES, *PROGRAMS))}")
    trained = Trained.at(folder, branch)
    model = trained.load("cpu")
    if out.suffix == ".onnx":
        _need_onnx()
    if out.is_dir():
        raise ModelError(f"{out} is a folder: give the name of a file")
    beside = preprocessing_file(out)
    try:
        with scratch_beside(out) as scratch:
            file = scratch / out.name
            network = _WRITERS[out.suffix](trained, file)
            images = generated_images(len(trained.build["mean"]), trained.preprocessing.image_size)
            agreement = Agreement.of(_embedded(model, images), _embedded(network, images))
            if not agreement.holds:
                raise ModelError(
                    f"{out} is not written: the exported network finds other neighbours than {folder} "
                    f"through {branch} (embeddings of generated images differ by {agreement.difference:.2g})"
                )
            description = _description(trained, out.name, model.in_channels)
            write_files({scratch / beside.name: json.dumps(description, indent=2) + "\n"})
            os.replace(scratch / beside.name, beside)
            os.replace(file, out)
    except OSError as error:
        raise disk_error(error, out) or ModelError(f"{out} cannot be written ({error})") from None
    return agreement


def _description(trained: Trained, name: str, in_channels: int) -> dict[str, Any]:
    """What preprocessing.json says; docs/deploy.md explains the keys."""
    build, inside = trained.build, name.endswith(PROGRAMS)
    return {
        "file": name,
        "backbone": build["backbone"],
        "embedding_dim": build["embedding_dim"],
        "branch": trained.branch,
        "weights": trained.weights,
        **trained.preprocessing.in_torchvision(),
        "mean": build["mean"],
        "std": build["std"],
        "channels": len(build["mean"]) if inside else in_channels,
        "normalized_inside": inside,
        "unit_length_inside": inside,
    }


def _embedded(network: Network, images: Tensor) -> NDArray[np.float32]:
    with torch.no_grad():
        return np.concatenate([np.asarray(network(batch)) for batch in images.split(BATCH_SIZE)])


def _plain(trained: Trained, state: dict[str, Tensor]) -> Embedder:
    """An unconverted network with a state dict, as a reader of the file has it."""
    build = trained.build
    model = build_model(build["backbone"], build["embedding_dim"], mean=build["mean"], std=build["std"])
    model.network.load_state_dict(state)
    return model.eval()


def _write_state(trained: Trained, file: Path) -> Network:
    export_network(trained.folder, file, trained.branch)
    return _plain(trained, read_state(file))


def _write_program(trained: Trained, file: Path) -> Network:
    model, example, shapes = _to_trace(trained)
    with _quiet(), _exporting(trained, "torch.export"):
        torch.export.save(torch.export.export(model, (example,), dynamic_shapes=shapes), file)
        return torch.export.load(file).module()


def _write_onnx(trained: Trained, file: Path) -> Network:
    from onnxruntime import InferenceSession

    model, example, shapes = _to_trace(trained)
    with _quiet(), _exporting(trained, "torch.onnx.export"):
        program: Any = torch.onnx.export(
            model,
            (example,),
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=["images"],
            output_names=["embeddings"],
            verbose=False,
        )
        file.write_bytes(program.model_proto.SerializeToString())
        session = InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images.numpy()})[0]


def _to_trace(trained: Trained) -> tuple[Embedder, Tensor, Any]:
    """The network of the branch alone, two images for it, and that their number is open."""
    model = _plain(trained, trained.load("cpu").network.state_dict())
    size = trained.preprocessing.image_size
    example = torch.rand(2, len(trained.build["mean"]), size, size)
    return model, example, ({0: torch.export.Dim("batch")},)


def _need_onnx() -> None:
    missing = [name for name in ("onnx", "onnxruntime", "onnxscript") if find_spec(name) is None]
    if missing:
        raise ModelError(f".onnx needs {' and '.join(missing)}: {INSTALL}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporters tell their developers."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


@contextmanager
def _exporting(trained: Trained, exporter: str) -> Iterator[None]:
    """Say in one line what an exporter cannot do; a full disk is another matter."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # exporters raise many kinds for what they do not know
        reason = textwrap.shorten(one_line(error), 300, placeholder=" ...")
        raise ModelError(f"{exporter} cannot export a {trained.build['backbone']}: {reason}") from None


_WRITERS: dict[str, Callable[[Trained, Path], Network]] = {
    **dict.fromkeys(STATES, _write_state),
    ".pt2": _write_program,
    ".onnx": _write_onnx,
}
