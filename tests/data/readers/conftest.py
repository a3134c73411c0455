from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def big_tree() -> Iterator[Path]:
    """A folder that is removed at once, as pytest would keep many thousands of files."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
