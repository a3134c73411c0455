"""The site of the guides: nothing is left out, and a warning fails its build."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mdprop
from tests.helpers import PROJECT

DOCS = PROJECT / "docs"


def test_every_guide_is_listed() -> None:
    listed = set(re.findall(r"^   (\w+)$", (DOCS / "index.rst").read_text(), re.MULTILINE))
    assert listed == {"api", *(path.stem for path in DOCS.glob("*.md"))}


def test_every_public_name_has_its_place() -> None:
    named = re.findall(
        r"^\.\. auto(?:class|function):: mdprop\.(\w+)$", (DOCS / "api.rst").read_text(), re.MULTILINE
    )
    assert sorted(named) == sorted(mdprop.__all__)


@pytest.mark.slow
@pytest.mark.skipif(
    not importlib.util.find_spec("sphinx"), reason="Sphinx is not installed: the extra `docs`"
)
def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path) -> None:
    """The configuration is strict; the site itself is built by .ci/run."""
    (tmp_path / "conf.py").write_text((DOCS / "conf.py").read_text())
    (tmp_path / "index.md").write_text("# One\n\n[there](gone.md), [heading](#none)\n")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        str(tmp_path),
        str(tmp_path / "site"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT)
    assert done.returncode
    assert "gone.md" in done.stderr and "'none'" in done.stderr
