"""What `import mdprop` offers."""

from __future__ import annotations

import subprocess
import sys

import pytest

import mdprop
from tests.helpers import PROJECT

FIXED = {
    "MultiBatchNorm1d",
    "MultiBatchNorm2d",
    "MultiBatchNorm3d",
    "convert_batchnorm",
    "route",
    "extract_branch",
    "choose_targets",
    "feature_attack",
    "MultiSimilarityLoss",
    "ArcFaceLoss",
    "S2SDLoss",
    "recall_at_k",
    "mean_average_precision",
    "clustering_scores",
    "nmi_f1",
    "embedding_density",
    "spectral_decay",
}


def test_the_public_names_are_there() -> None:
    assert set(mdprop.__all__) == FIXED
    assert set(dir(mdprop)) == {*FIXED, "__version__"}
    for name in mdprop.__all__:
        found = getattr(mdprop, name)
        assert found.__name__ == name
        assert found.__doc__


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"^module mdprop has no attribute recall$"):
        _ = mdprop.recall  # type: ignore[attr-defined]


def test_names_are_imported_when_they_are_used() -> None:
    code = """
import sys
import mdprop
assert not {"torch", "numpy", "pydantic"} & set(sys.modules)
mdprop.recall_at_k
assert "numpy" in sys.modules and "torch" not in sys.modules
from mdprop import feature_attack
assert "torch" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True)


def test_types_are_shipped() -> None:
    assert (PROJECT / "mdprop" / "py.typed").exists()
    assert "py.typed" in (PROJECT / "pyproject.toml").read_text()
