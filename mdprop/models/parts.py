"""Where a network has its embedding layer, its pooling and its batch norms, whoever wrote it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mdprop.layers import multi_batchnorms

POOLING = ("avgpool", "global_pool", "_avg_pooling")
"""The attribute that pools the last feature map: conv4 and torchvision, timm, efficientnet_lite0."""


def head_names(network: nn.Module) -> tuple[str, ...]:
    """The embedding layer's name within `network`; timm's distilled models have two."""
    record: Any = getattr(network, "pretrained_cfg", None)
    if record is not None:  # timm's own
        names = record["classifier"]
        return (names,) if isinstance(names, str) else tuple(names)
    return tuple(name for name in ("fc", "_fc") if hasattr(network, name))


def head_parameters(network: nn.Module) -> dict[nn.Parameter, None]:
    """The weights and biases of the embedding layer, in order."""
    heads = map(network.get_submodule, head_names(network))
    return dict.fromkeys(parameter for head in heads for parameter in head.parameters())


def feature_dim(network: nn.Module) -> int:
    """Channels of the last feature map: what timm records, or what the embedding layer takes."""
    recorded: Any = getattr(network, "num_features", None)
    if recorded is not None:
        return recorded
    head: Any = network.get_submodule(head_names(network)[0])
    return head.in_features


def pooling_layer(network: nn.Module) -> nn.Module | None:
    """The one module that pools the last feature map; None where there is none, or several."""
    found = [m for name, m in network.named_modules() if name.rpartition(".")[2] in POOLING]
    return found[0] if len(found) == 1 else None


def batchnorms(module: nn.Module) -> Iterator[tuple[_BatchNorm, bool]]:
    """Every plain batch norm in `module`, in branches or not, and whether clean images meet it."""
    layers = multi_batchnorms(module)
    auxiliary = {norm for m in layers for name, norm in m.branches.items() if name != m.default}
    for norm in module.modules():
        if isinstance(norm, _BatchNorm):
            yield norm, norm not in auxiliary


@contextmanager
def frozen(module: nn.Module, but: Collection[nn.Parameter] = ()) -> Iterator[None]:
    """No parameter of `module` but some asks for a gradient meanwhile: autograd keeps less for the others.

    For attacks: a tenth of one on a ResNet-50 on a CPU.
    """
    learning = [p for p in module.parameters() if p.requires_grad and p not in but]
    for parameter in learning:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learning:
            parameter.requires_grad_(True)


def broken_weights(module: nn.Module) -> str | None:
    """The first weight or statistic of `module` with a value that is not finite; None: there is none."""
    return broken_tensor(module.state_dict())


def broken_tensor(state: Mapping[str, Tensor]) -> str | None:
    """The first of these tensors with a value that is not finite, by name; a GPU is waited for once."""
    finite = torch.stack([value.isfinite().all() for value in state.values()]).tolist() if state else []
    return next((name for name, fine in zip(state, finite, strict=True) if not fine), None)


def parameter_groups(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The parameters of an `Embedder` by what may have a learning rate of its own.

    Keys: "backbone", "head" (the embedding layer), "clean_batchnorm" (also the plain batch norms of a
    model without branches) and "auxiliary_batchnorm" (all other branches). Each parameter is in one
    group, in the model's order; a group may be empty.
    """
    group_of: dict[nn.Parameter, str] = {}
    for norm, clean in batchnorms(model):
        group_of |= dict.fromkeys(norm.parameters(), "clean_batchnorm" if clean else "auxiliary_batchnorm")
    group_of |= dict.fromkeys(head_parameters(model.get_submodule("network")), "head")
    groups: dict[str, list[nn.Parameter]] = {
        name: [] for name in ("backbone", "head", "clean_batchnorm", "auxiliary_batchnorm")
    }
    for parameter in model.parameters():
        groups[group_of.get(parameter, "backbone")].append(parameter)
    return groups
