"""Runs of a study that are stopped: no DVC goes on behind the back of the next one."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mdprop.errors import ResultError
from mdprop.study.runner import make
from mdprop.study.workspace import Workspace
from tests.helpers import PROJECT

SLOW = "stages: {slow: {cmd: 'touch started && sleep 60 && touch ended'}}"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = tmp_path / "project"
    for name in ("mdprop", "stages", "surrogates", ".dvc/cache", "data/raw"):
        (project / name).mkdir(parents=True)
    for name in (".dvc/config", ".dvcignore", "surrogates/README.md"):
        (project / name).write_text((PROJECT / name).read_text())
    (project / "dvc.yaml").write_text(SLOW)
    return project


def wait_for(file: Path) -> None:
    for _ in range(600):
        if file.exists():
            return
        time.sleep(0.1)
    raise AssertionError(f"no {file}")


def test_a_run_that_is_stopped_ends_and_leaves_the_folder_free(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "workspace"
    workspace = Workspace(project, folder)
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(workspace.run, {}, "slow")
        wait_for(folder / "started")
        with pytest.raises(ResultError, match="is in use by another"):
            Workspace(project, folder)
        workspace.stop()
        with pytest.raises(ResultError, match="slow"):
            run.result()
    assert not (folder / "ended").exists()
    (folder / ".dvc" / "tmp" / "rwlock").touch()  # what a killed DVC can leave: all of its commands fail then
    workspace.close()
    again = Workspace(project, folder)
    (folder / "dvc.yaml").write_text("stages: {quick: {cmd: 'touch quick'}}")
    again.run({}, "quick")
    assert (folder / "quick").exists()
    again.close()


def test_a_stop_ends_every_run(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mdprop.study import runner

    class Stopped(Workspace):
        def run(self, *given: object) -> None:
            if self.folder.name.endswith("0"):
                wait_for(self.folder.with_name("some-1") / "started")
                raise KeyboardInterrupt
            super().run({}, "slow")

    monkeypatch.setattr(runner, "Workspace", Stopped)
    tasks = [type("Task", (), {"params": {}, "target": "slow", "unit": name})() for name in "ab"]
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        make(tasks, Path("some"), project, 2, print)
    assert time.monotonic() - begin < 50
    assert not (project / runner.WORKSPACES / "some-1" / "ended").exists()
