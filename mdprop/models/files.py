"""Models on disk: weights of every branch as safetensors, and what they are as JSON beside them."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from mdprop.branches import CLEAN
from mdprop.errors import ModelError, ResultError
from mdprop.files import read_sealed_json, sealed_file, sealed_json, whole_file, write_files
from mdprop.layers import extract_branch, multi_batchnorms
from mdprop.models.build import build_model
from mdprop.models.embedder import Embedder
from mdprop.models.layout import place
from mdprop.models.parts import broken_tensor
from mdprop.seals import BLANK, BrokenSeal, sealed_as, verify

WEIGHTS = "model.safetensors"
DESCRIPTION = "model.json"

_DIVERGED = "the training diverged; train again with a lower train.learning_rate"


def save_model(
    model: Embedder,
    folder: str | Path,
    *,
    backbone: str,
    embedding_dim: int,
    details: Mapping[str, object] | None = None,
) -> None:
    """Write `folder`/model.safetensors and model.json, both sealed.

    model.json holds what `load_model` needs to build the network (backbone, embedding_dim,
    branches, mean, std), the digest of the weights, and `details`, such as parameters and provenance.
    Raises `ModelError` for weights that are not finite.
    """
    folder = Path(folder)
    norms = multi_batchnorms(model)
    build: dict[str, Any] = {
        "backbone": backbone,
        "embedding_dim": embedding_dim,
        "branches": list(norms[0].branches) if norms else [CLEAN],
        "mean": [float(str(v)) for v in model.mean.flatten().cpu().numpy()],
        "std": [float(str(v)) for v in model.std.flatten().cpu().numpy()],
    }
    content = {"build": build, **(details or {})}
    sealed_json(content)  # what cannot be written, before anything is
    state = _state(model.network)
    if broken := broken_tensor(state):
        raise ModelError(f"{folder}: {broken} is not finite, nothing is written: {_DIVERGED}")
    with sealed_file(folder / WEIGHTS) as partial:
        partial.write_bytes(save(state, {"seal": BLANK}))
    content["weights"] = sealed_as(folder / WEIGHTS)
    write_files({folder / DESCRIPTION: sealed_json(content, sort_keys=True)})


def load_model(folder: str | Path, device: str | torch.device = "cpu", branch: str | None = None) -> Embedder:
    """The network that `save_model` wrote, in eval mode.

    branch: the batch-norm branch, or mixture of two, that is to answer; None: every branch.
    Raises `ModelError` where there is none, it is damaged, not finite, or has no such branch.
    """
    folder = Path(folder)
    for name in (DESCRIPTION, WEIGHTS):
        if not (folder / name).exists():
            raise ModelError(f"no model in {folder}: {folder / name} is missing; train it first")
    try:
        description = read_sealed_json(folder / DESCRIPTION, "train it again")
        build, named = description["build"], description["weights"]
        digest = verify(folder / WEIGHTS)
        if digest != named:
            raise ModelError(f"{folder / WEIGHTS} is not the file that {DESCRIPTION} names; train it again")
        model = build_model(**build)
        state = load_file(folder / WEIGHTS)
    except BrokenSeal as error:
        raise ModelError(f"{folder / WEIGHTS} {error}; train it again") from None
    except ResultError as error:
        raise ModelError(str(error)) from None
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(f"the model in {folder} cannot be read ({error}); train it again") from None
    try:
        model.network.load_state_dict(state)
    except RuntimeError as error:
        problem = textwrap.shorten(str(error), 300, placeholder=" ...")
        raise ModelError(f"the weights in {folder} do not fit its model.json: {problem}") from None
    if broken := broken_tensor(state):
        raise ModelError(f"{folder / WEIGHTS}: {broken} is not finite: {_DIVERGED}")
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
    state = _state(load_model(folder, branch=branch).network)
    with whole_file(out) as partial:
        if out.suffix == ".pth":
            content = io.BytesIO()
            torch.save(state, content)
            partial.write_bytes(content.getbuffer())
        else:
            partial.write_bytes(save(state))


def _state(network: nn.Module) -> dict[str, Tensor]:
    return {key: value.contiguous() for key, value in network.state_dict().items()}
