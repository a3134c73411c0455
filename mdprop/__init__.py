"""Deep metric learning with multiple batch norms and multi-targeted adversarial examples.

The names in `__all__` are public, and are imported when they are first used; what other modules hold
may change with any version.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mdprop.attacks import Threat, choose_targets, feature_attack
    from mdprop.layers import (
        MultiBatchNorm1d,
        MultiBatchNorm2d,
        MultiBatchNorm3d,
        convert_batchnorm,
        extract_branch,
        route,
    )
    from mdprop.library.evaluation import Evaluation, evaluate
    from mdprop.library.fitting import fit
    from mdprop.losses import ArcFaceLoss, MultiSimilarityLoss, S2SDLoss
    from mdprop.methods import Method
    from mdprop.metrics import (
        clustering_scores,
        embedding_density,
        mean_average_precision,
        nmi_f1,
        recall_at_k,
        spectral_decay,
    )
    from mdprop.models import build_model, load_model

__version__ = "0.4.0"

_HOMES = {
    "attacks": ("Threat", "choose_targets", "feature_attack"),
    "layers": (
        "MultiBatchNorm1d",
        "MultiBatchNorm2d",
        "MultiBatchNorm3d",
        "convert_batchnorm",
        "extract_branch",
        "route",
    ),
    "library.evaluation": ("Evaluation", "evaluate"),
    "library.fitting": ("fit",),
    "losses": ("ArcFaceLoss", "MultiSimilarityLoss", "S2SDLoss"),
    "methods": ("Method",),
    "metrics": (
        "clustering_scores",
        "embedding_density",
        "mean_average_precision",
        "nmi_f1",
        "recall_at_k",
        "spectral_decay",
    ),
    "models": ("build_model", "load_model"),
}

__all__ = [
    "ArcFaceLoss",
    "Evaluation",
    "Method",
    "MultiBatchNorm1d",
    "MultiBatchNorm2d",
    "MultiBatchNorm3d",
    "MultiSimilarityLoss",
    "S2SDLoss",
    "Threat",
    "build_model",
    "choose_targets",
    "clustering_scores",
    "convert_batchnorm",
    "embedding_density",
    "evaluate",
    "extract_branch",
    "feature_attack",
    "fit",
    "load_model",
    "mean_average_precision",
    "nmi_f1",
    "recall_at_k",
    "route",
    "spectral_decay",
]


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
