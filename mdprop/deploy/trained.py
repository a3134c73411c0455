"""A trained model by its folder: which network answers, and what it does to images first."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mdprop.branches import CLEAN
from mdprop.deploy.preprocessing import Preprocessing
from mdprop.errors import ModelError, ResultError
from mdprop.files import read_sealed_json
from mdprop.models import Embedder, load_model
from mdprop.models.files import DESCRIPTION


@dataclass(frozen=True)
class Trained:
    """What model.json in a run's folder says.

    branch: the one, or the mixture, that answers. weights: their digest, whatever the branch.
    build: what builds the network, see `save_model`.
    """

    folder: Path
    branch: str
    weights: str
    build: dict[str, Any]
    preprocessing: Preprocessing

    @classmethod
    def at(cls, folder: Path, branch: str = CLEAN) -> Trained:
        """Raises `ModelError` for a folder without a model, and one whose images are not described."""
        file = folder / DESCRIPTION
        if not file.is_file():
            what = "has no model.json" if folder.is_dir() else "is no folder"
            raise ModelError(
                f"{folder} {what}: give the folder of a trained model, such as runs/mdprop/0, "
                "which `dvc repro` makes"
            )
        try:
            description = read_sealed_json(file, "train it again")
        except ResultError as error:
            raise ModelError(str(error)) from None
        try:
            parameters = description["parameters"]
            images = parameters["datasets"][parameters["dataset"]["name"]]
            preprocessing = Preprocessing(*(images[key] for key in Preprocessing.__dataclass_fields__))
            return cls(folder, branch, str(description["weights"]), dict(description["build"]), preprocessing)
        except (KeyError, TypeError, ValueError):
            raise ModelError(
                f"{file} does not say how images were prepared: one that the pipeline trained is needed"
            ) from None

    def load(self, device: str | torch.device) -> Embedder:
        """The network in eval mode. Raises `ModelError` as `load_model` does."""
        return load_model(self.folder, device, self.branch)
