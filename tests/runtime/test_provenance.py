from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mdprop
from mdprop.runtime.provenance import provenance


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=test", "-c", "user.email=test@localhost", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_provenance_names_versions_and_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MDPROP_DEVICE", "cpu")
    found = provenance()
    assert found["mdprop"] == mdprop.__version__
    assert found["torch"] == torch.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["device"] == "cpu"
    assert set(found) == {"mdprop", "python", "torch", "device", "commit"}
    assert found == provenance()


def test_the_commit_has_a_plus_where_files_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MDPROP_DEVICE", "cpu")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    assert provenance()["commit"] == "unknown"
    git(tmp_path, "init", "--quiet")
    assert provenance()["commit"] == "unknown"
    (tmp_path / "a.txt").write_text("a")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    git(tmp_path, "tag", "v1")
    commit = git(tmp_path, "rev-parse", "--short=12", "HEAD")
    assert provenance()["commit"] == commit
    (tmp_path / "a.txt").write_text("b")
    assert provenance()["commit"] == f"{commit}+"


def test_without_git_the_commit_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("MDPROP_DEVICE", "cpu")
    assert provenance()["commit"] == "unknown"
