"""What `import mdprop` offers."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import mdprop
from mdprop.errors import PIPELINE_PACKAGES
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
PIPELINE_ONLY = (*PIPELINE_PACKAGES, "typer")


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


def test_what_only_the_pipeline_needs_is_an_extra_of_that_name() -> None:
    tomllib = pytest.importorskip("tomllib")  # of Python 3.11
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    apart = {text.partition(">")[0] for text in extras["pipeline"]}
    assert apart == {name.lower() for name in PIPELINE_PACKAGES}
    assert not apart & {text.partition(">")[0] for text in project["dependencies"]}
    assert "mdprop[pipeline]" in extras["dev"]


@pytest.mark.parametrize("command", [("mdprop", "compare", "--all"), ("mdprop", "study", "docs")])
def test_a_command_of_the_pipeline_says_what_to_install(command: tuple[str, ...]) -> None:
    code = f"""
import runpy
import sys
sys.modules.update(dict.fromkeys({PIPELINE_PACKAGES}))
sys.argv = {["x", *command[1:]]}
runpy.run_module("{command[0]}", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 2
    assert re.fullmatch(
        r'error: this needs \w+, which is installed with the pipeline: pip install "mdprop\[pipeline\]", '
        r'or pip install -e "\.\[pipeline\]" in a checkout\n',
        done.stderr,
    )


def test_types_are_shipped() -> None:
    assert (PROJECT / "mdprop" / "py.typed").exists()
    assert "py.typed" in (PROJECT / "pyproject.toml").read_text()
