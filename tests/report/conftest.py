from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder: runs lie below it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
