"""Models on disk: weights of every branch as safetensors, and what they are as JSON beside them."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from mdprop.branches import CLEAN
from mdprop.errors import ModelError
from mdprop.files import whole_file, write_files
from mdprop.layers import extract_branch, multi_batchnorms
from mdprop.models.build import build_model
from mdprop.models.embedder import Embedder
from mdprop.models.layout import place

WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"


def save_model(
    model: Embedder,
    folder: str | Path,
    *,
    backbone: str,
    embedding_dim: int,
    details: Mapping[str, object] | None = None,
) -> None:
    """Write `folder`/model.safetensors and model.json.

    model.json holds what `load_model` needs to build the network (backbone, embedding_dim,
    branches, mean, std) and `details`, such as parameters and provenance.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    norms = multi_batchnorms(model)
    build: dict[str, Any] = {
        "backbone": backbone,
        "embedding_dim": embedding_dim,
        "branches": list(norms[0].branches) if norms else [CLEAN],
        "mean": [float(str(v)) for v in model.mean.flatten().cpu().numpy()],
        "std": [float(str(v)) for v in model.std.flatten().cpu().numpy()],
    }
    description = json.dumps({"build": build, **(details or {})}, indent=2, sort_keys=True)
    _write_state(model.network, folder / WEIGHTS)
    write_files({folder / DESCRIPTION: description + "\n"})


def load_model(folder: str | Path, device: str | torch.device = "cpu", branch: str | None = None) -> Embedder:
    """The network that `save_model` wrote, in eval mode.

    branch: the batch-norm branch, or mixture of two, that is to answer; None: every branch.
    Raises `ModelError` where there is none, it is damaged, or has no such branch.
    """
    folder = Path(folder)
    for name in (DESCRIPTION, WEIGHTS):
        if not (folder / name).exists():
            raise ModelError(f"no model in {folder}: {folder / name} is missing; train it first")
    try:
        model = build_model(**json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))["build"])
        state = load_file(folder / WEIGHTS)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(f"the model in {folder} cannot be read ({error}); train it again") from None
    try:
        model.network.load_state_dict(state)
    except RuntimeError as error:
        problem = textwrap.shorten(str(error), 300, placeholder=" ...")
        raise ModelError(f"the weights in {folder} do not fit its model.json: {problem}") from None
    if branch is not None:
        try:
            model.network = extract_branch(model.network, branch)
        except ValueError as error:
            raise ModelError(f"{folder}: {error}") from None
    return place(model, device).eval()


def export_network(folder: str | Path, out: str | Path, branch: str = CLEAN) -> None:
    """Write one branch as a plain state dict, which the unconverted network loads.

    For a torchvision backbone: `torchvision.models.get_model(name, num_classes=embedding_dim)`
    loads it; the network takes normalised images and its output is not L2-normalised.
    out: a .safetensors or .pth file.
    """
    out = Path(out)
    if out.suffix not in (".safetensors", ".pth"):
        raise ModelError(f"{out}: write to a .safetensors or a .pth file")
    network = load_model(folder, branch=branch).network
    out.parent.mkdir(parents=True, exist_ok=True)
    _write_state(network, out)


def _write_state(network: nn.Module, out: Path) -> None:
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    with whole_file(out) as partial:
        if out.suffix == ".pth":
            torch.save(state, partial)
        else:
            save_file(state, partial)
