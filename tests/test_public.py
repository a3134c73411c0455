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
LIBRARY = {"Evaluation", "Method", "Threat", "build_model", "evaluate", "fit", "load_model"}
PUBLIC = FIXED | LIBRARY
PIPELINE_ONLY = ("dvc", "dvclive", "fontTools", "matplotlib", "typer")


def test_the_public_names_are_there() -> None:
    assert set(mdprop.__all__) == PUBLIC
    assert set(dir(mdprop)) == {*PUBLIC, "__version__"}
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


def test_the_library_needs_nothing_that_only_the_pipeline_needs() -> None:
    code = f"""
import sys
sys.modules.update(dict.fromkeys({PIPELINE_ONLY}))  # importing one of these raises
import torch
import mdprop
for name in mdprop.__all__:
    getattr(mdprop, name)
batches = [(torch.rand(8, 1, 16, 16), torch.arange(8) % 2)]
model = mdprop.fit("conv4", batches, epochs=1)
print(mdprop.evaluate(model, batches, queries=0, ks=[1]).recall)
"""
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True)


def test_the_library_is_installed_without_the_pipeline() -> None:
    """The group `library` in pyproject.toml has the requirements of the package, without these."""
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    every, library = settings["project"]["dependencies"], settings["dependency-groups"]["library"]
    apart = {"dvc", "dvclive", "fonttools", "jinja2", "matplotlib", "typer"}
    assert library == [text for text in every if text.partition(">")[0] not in apart]


def test_types_are_shipped() -> None:
    assert (PROJECT / "mdprop" / "py.typed").exists()
    assert "py.typed" in (PROJECT / "pyproject.toml").read_text()
