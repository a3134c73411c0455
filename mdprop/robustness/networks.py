"""A network to measure, from what a command line names."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
import textwrap
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from mdprop.branches import CLEAN
from mdprop.errors import ModelError
from mdprop.models import Embedder, build_model, place
from mdprop.models.joint import JointEmbedder
from mdprop.models.parts import head_names
from mdprop.models.weights import fit, read_state
from mdprop.robustness.foreign import ForeignEmbedder, reason
from mdprop.robustness.sets import attacked_model
from mdprop.runs import Run
from mdprop.runtime.hardware import device

FORMS = (
    "file.py:function or package.module:function, an exported program (.pt2, or .pt of TorchScript), a state "
    "dict (.safetensors, .pth) with --backbone, or the folder of a run"
)


@dataclass(frozen=True)
class Network:
    """What is measured.

    name: in messages. load: the network in eval mode, by the branch that is attacked or answers.
    branches: those that it has. answers: the one, or the mixture, that it is measured through.
    """

    name: str
    load: Callable[[str], Embedder | JointEmbedder]
    branches: frozenset[str] = frozenset({CLEAN})
    answers: str = CLEAN

    @classmethod
    def of(
        cls,
        module: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        normalize: bool = False,
        name: str = "the network",
    ) -> Network:
        """Any module of images [B, C, H, W] that returns embeddings [B, D]; see `ForeignEmbedder`."""
        model = ForeignEmbedder(module, mean, std, normalize=normalize, name=name).to(device()).eval()
        return cls(name, lambda branch: model)


@dataclass(frozen=True)
class RunAt(Run):
    """A run in a folder of any name."""

    place: Path = Path()

    def __str__(self) -> str:
        return str(self.place)

    @property
    def folder(self) -> Path:
        return self.place


def load_network(
    text: str,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    normalize: bool = False,
    backbone: str | None = None,
    branch: str | None = None,
) -> Network:
    """The network that `text` names, one of `FORMS`, on the device.

    mean, std: of the images' channels.
    normalize: see `ForeignEmbedder`; for functions and exported programs.
    backbone: of a state dict that `mdprop export` wrote. branch: of a run; None: the clean one.

    Raises `ModelError`, one line, for what is missing, damaged or no network, and for an option that
    this kind of network does not have.
    """
    path = Path(text)
    if path.is_dir():
        _refuse(f"{text} is a folder", {"--normalize": normalize, "--backbone": backbone})
        run = RunAt(path.parent.name, 0, place=path)
        load, answers = partial(attacked_model, run), branch or CLEAN
        load(answers)  # says what is missing
        return Network(text, load, frozenset(run.branches()), answers)
    _refuse(f"{text} is no folder of a run", {"--branch": branch})
    if backbone is None:
        return Network.of(_module(text, path), mean, std, normalize=normalize, name=text)
    _refuse("--backbone reads a state dict", {"--normalize": normalize})
    model = place(_from_state(path, backbone, mean, std), device()).eval()
    return Network(text, lambda branch: model)


def _refuse(what: str, options: Mapping[str, object]) -> None:
    for option, value in options.items():
        if value:
            raise ModelError(f"{what}: {option} is not for it; leave it out")


def _module(text: str, path: Path) -> nn.Module:
    """A function's or an exported program's."""
    if path.is_file():
        if path.suffix == ".pt2":
            return _exported(path)
        if path.suffix == ".pt":
            return _script(path)
        if path.suffix == ".py":
            raise ModelError(f"{text}: name the function that returns the network, {text}:function")
        if path.suffix in (".safetensors", ".pth"):
            raise ModelError(f"{text} is a state dict: say of which network, --backbone resnet50 or the like")
    if path.is_file() or ":" not in text:
        problem = "is of no known kind" if path.is_file() else "does not exist"
        raise ModelError(f"{text} {problem}: give {FORMS}")
    return _called(text)


def _called(text: str) -> nn.Module:
    """What the function that `text` names returns."""
    place, _, name = text.rpartition(":")
    try:
        module = _imported_file(Path(place)) if place.endswith(".py") else _imported(place)
    except Exception as error:  # it is not our code
        raise ModelError(f"{place} cannot be imported: {reason(error)}") from None
    found: Any = getattr(module, name, None)
    if not isinstance(found, nn.Module):
        if not callable(found):
            raise ModelError(f"{place} has no function '{name}'")
        try:
            found = found()
        except Exception as error:  # likewise
            raise ModelError(f"{text}() fails: {reason(error)}") from None
    if not isinstance(found, nn.Module):
        raise ModelError(f"{text}() returns a {type(found).__name__}: a torch.nn.Module is needed")
    return found


def _imported(name: str) -> ModuleType:
    sys.path.insert(0, "")  # as `python -m` does
    return importlib.import_module(name)


def _imported_file(path: Path) -> ModuleType:
    sys.path.insert(0, str(path.parent.absolute()))  # as `python file.py` does
    spec = importlib.util.spec_from_file_location(f"measured_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for their module there
    spec.loader.exec_module(module)
    return module


class _Program(nn.Module):
    """An exported program, whose mode is fixed: its own train() and eval() raise."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program

    def train(self, mode: bool = True) -> _Program:
        self.training = mode
        return self

    def forward(self, images: Tensor) -> Any:
        return self.program(images)


def _exported(path: Path) -> nn.Module:
    """A file of `torch.export.save`."""
    from torch.export import load
    from torch.export.passes import move_to_device_pass

    try:
        logging.disable(logging.WARNING)  # of its attempts to read older formats
        program = move_to_device_pass(load(path), device())
    except Exception as error:  # a damaged archive may raise anything
        raise ModelError(f"{path} is no program that torch.export.save wrote: {reason(error)}") from None
    finally:
        logging.disable(logging.NOTSET)
    inputs = program.graph_signature.user_inputs
    if len(inputs) != 1:
        raise ModelError(f"{path} takes {len(inputs)} inputs: a network of one, the images, is needed")
    (node,) = (node for node in program.graph.nodes if node.name == inputs[0])
    shape = getattr(node.meta.get("val"), "shape", ())
    if shape and isinstance(shape[0], int):
        raise ModelError(
            f"{path} takes batches of {shape[0]} only: export it with a batch of any size, "
            "torch.export.export(network, (images,), dynamic_shapes=({0: torch.export.Dim('batch')},))"
        )
    return _Program(program.module())


def _script(path: Path) -> nn.Module:
    """A file of TorchScript, which torch still reads."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated, as users know by now
            return torch.jit.load(path, map_location=device())
    except (RuntimeError, ValueError) as error:
        text = textwrap.shorten(str(error), 100, placeholder=" ...")
        raise ModelError(f"{path} is no TorchScript ({text}); a state dict needs --backbone") from None


def _from_state(path: Path, backbone: str, mean: Sequence[float], std: Sequence[float]) -> Embedder:
    """The network of a state dict, whose embedding layer says how many dimensions there are."""
    try:
        state = read_state(path)
    except ModelError as error:
        raise ModelError(str(error).removeprefix("model.weights: ")) from None
    head = f"{head_names(build_model(backbone, 3, mean=mean, std=std).network)[0]}.weight"
    if head not in state or state[head].ndim != 2:
        raise ModelError(f"{path} has no {head}: it is no {backbone} that mdprop export wrote")
    if any(".branches." in key for key in state):
        raise ModelError(f"{path} has several batch-norm branches: give the folder of its run, with --branch")
    model = build_model(backbone, len(state[head]), mean=mean, std=std)
    fit(model.network, state, str(path), f"{backbone} for {len(mean)} channels")
    return model
