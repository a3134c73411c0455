"""Weights to start from: published ones by name, or a file."""

from __future__ import annotations

import pickle
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import get_model_weights

from mdprop.errors import ModelError, one_line
from mdprop.models.efficientnet import pretrained_file
from mdprop.models.parts import broken_tensor, head_names
from mdprop.settings import expanded

SUFFIXES = (".pth", ".pt", ".safetensors")
PRETRAINED = "pretrained"


def load_weights(network: nn.Module, backbone: str, weights: str) -> None:
    """Load `weights` into `network` in place, all but the embedding layer, which is always new.

    weights: "pretrained" (IMAGENET1K_V1 of torchvision, the paper's; timm's default; those of the pip
        package for efficientnet_lite0), a torchvision weight name of the backbone, or a file: .pth or
        .pt with a state dict, bare or under "state_dict" or "model", or .safetensors.

    Raises `ModelError` for an unknown name, a file that is missing, unreadable or of another network,
    for values that no network can work with, and where a download fails.
    """
    if Path(weights).suffix.lower() in SUFFIXES:
        state: Mapping[str, Tensor] = read_state(expanded(weights, "model.weights"))
    else:
        state = _published(backbone, weights)
    fit(network, state, f"model.weights: {weights}", backbone, but=head_names(network))


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dict in a .pth, .pt or .safetensors file; nothing but tensors is unpickled."""
    if not path.is_file():
        raise ModelError(
            f"model.weights: no file {path.absolute()}; give another path, absolute for queued experiments"
        )
    try:
        if path.suffix.lower() == ".safetensors":
            content: Any = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of a pickle protocol that torch does not write
                content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ModelError(
            f"model.weights: {path} is damaged, or holds more than tensors, which is not read for safety; "
            "save the network's state_dict() alone, or as .safetensors"
        ) from None
    except Exception as error:  # a damaged pickle may raise anything
        raise ModelError(f"model.weights: {path} cannot be read ({_short(error)})") from None
    return _state_dict(content, path)


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(
        isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items()
    ):
        raise ModelError(
            f"model.weights: {path} holds no state dict, neither bare nor under 'state_dict' or 'model'"
        )
    prefix = "module."  # of nn.DataParallel
    whole = all(key.startswith(prefix) for key in content)
    return {key.removeprefix(prefix) if whole else key: value for key, value in content.items()}


def _published(backbone: str, weights: str) -> Mapping[str, Tensor]:
    files = f"a {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file"
    known = _names(backbone)
    if not known:
        raise ModelError(f"model.weights '{weights}': {backbone} has no published weights; null, or {files}")
    if weights not in known:
        raise ModelError(
            f"model.weights: unknown '{weights}' for {backbone}; known: {', '.join(known)}, or {files}"
        )
    if backbone == "efficientnet_lite0":
        return read_state(pretrained_file())
    if backbone.startswith("timm:"):
        return _timm_state(backbone.removeprefix("timm:"))
    return _torchvision_state(backbone, "IMAGENET1K_V1" if weights == PRETRAINED else weights)


def _names(backbone: str) -> tuple[str, ...]:
    if backbone == "conv4":
        return ()
    if backbone == "efficientnet_lite0" or backbone.startswith("timm:"):
        return (PRETRAINED,)
    return (PRETRAINED, *get_model_weights(backbone).__members__)


def _torchvision_state(backbone: str, name: str) -> Mapping[str, Tensor]:
    weights = get_model_weights(backbone)[name]
    try:
        return weights.get_state_dict(check_hash=True, weights_only=True)
    except OSError as error:
        raise _not_downloaded(weights.url, error) from None
    except Exception as error:  # likewise
        raise ModelError(
            f"model.weights '{name}': the download of {weights.url} is damaged ({_short(error)}); "
            f"delete its copy in {torch.hub.get_dir()}/checkpoints, if there is one, and run again"
        ) from None


def _timm_state(name: str) -> Mapping[str, Tensor]:
    import timm

    published = timm.get_pretrained_cfg(name)
    if published is None or not published.has_weights:
        raise ModelError(f"model.weights 'pretrained': timm has none for {name}; see timm.list_pretrained()")
    try:
        return timm.create_model(name, pretrained=True).state_dict()
    except OSError as error:
        hub = published.hf_hub_id
        raise _not_downloaded(f"https://huggingface.co/{hub}" if hub else str(published.url), error) from None


def _not_downloaded(url: str, error: OSError) -> ModelError:
    return ModelError(
        f"model.weights: {url} cannot be downloaded ({_short(error)}); without internet, download it "
        "elsewhere and give the file's path as model.weights"
    )


def fit(
    network: nn.Module, state: Mapping[str, Tensor], name: str, kind: str, but: Sequence[str] = ()
) -> None:
    """Load a state dict into `network`, all of it but that of some layers; the rest must fit exactly.

    Counters of batches, which old files lack, may be missing. name, kind: of the file and the network.
    Raises `ModelError` where it does not fit, and for values that no network can work with.
    """
    left = tuple(f"{layer}." for layer in but)
    own = {key: value for key, value in network.state_dict().items() if not key.startswith(left)}
    given = {key: value for key, value in state.items() if not key.startswith(left)}
    differences = {
        "missing": [key for key in own if key not in given and not key.endswith(".num_batches_tracked")],
        "unexpected": [key for key in given if key not in own],
        "of another shape": [
            f"{key} {tuple(given[key].shape)} for {tuple(value.shape)}"
            for key, value in own.items()
            if key in given and given[key].shape != value.shape
        ],
        "of another kind": [
            f"{key} {given[key].dtype} {given[key].layout}".replace("torch.", "")
            for key, value in own.items()
            if key in given and not _is_like(given[key], value)
        ],
    }
    found = "; ".join(f"{what}: {_first(keys)}" for what, keys in differences.items() if keys)
    if any(".branches." in key for key in differences["unexpected"]):
        found += " (several batch-norm branches: write one of them with mdprop export)"
    if found:
        raise ModelError(f"{name} does not fit {kind}: {found}")
    network.load_state_dict(given, strict=False)
    if unusable := _unusable(network):
        raise ModelError(f"{name} {unusable}; use another file")


def _is_like(given: Tensor, own: Tensor) -> bool:
    """Whether a tensor is a plain one of numbers such as `own` has; of any precision."""
    plain = given.layout == torch.strided and not (given.is_quantized or given.is_meta or given.is_complex())
    return plain and (given.is_floating_point() or not own.is_floating_point())


def _unusable(network: nn.Module) -> str | None:
    """What is wrong with the values of a network that has its weights."""
    state = network.state_dict()
    if broken := broken_tensor(state):
        return f"holds values in {broken} that are not finite"
    negative = (k for k, v in state.items() if k.endswith("running_var") and bool((v < 0).any()))
    name = next(negative, None)
    return None if name is None else f"holds variances in {name} that are below 0"


def _short(error: Exception) -> str:
    return textwrap.shorten(one_line(error) or type(error).__name__, 200, placeholder=" ...")


def _first(keys: list[str], most: int = 3) -> str:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more
