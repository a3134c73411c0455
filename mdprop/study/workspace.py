"""A copy of the project in which the runs of a study are made, so that the project itself stays as it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from mdprop.errors import ResultError
from mdprop.runtime.locks import locked

CODE = ("mdprop", "stages", "dvc.yaml", ".dvcignore", "surrogates/README.md")


class Workspace:
    """It has the project's code as it is now, its raw data and its cache of DVC, and its own results.

    One run at a time. A run that was interrupted goes on where it was. Raises `ResultError` while
    another process has the folder, also the DVC that a killed one left behind.
    """

    def __init__(self, project: Path, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log.txt"
        self._running: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        lock = locked(folder / "lock")
        if lock is None:
            raise ResultError(
                f"{folder} is in use by another `mdprop study run`, or by what it left: wait for it"
            )
        self._lock = lock
        (folder / ".dvc" / "tmp" / "rwlock").unlink(missing_ok=True)  # of a DVC that was killed
        for name in CODE:
            self._copy(project / name, folder / name)
        (folder / ".dvc").mkdir(exist_ok=True)
        shutil.copy(project / ".dvc" / "config", folder / ".dvc" / "config")
        cache = (project / ".dvc" / "cache").resolve()
        (folder / ".dvc" / "config.local").write_text(
            f"[core]\n    no_scm = true\n[cache]\n    dir = {cache}\n", encoding="utf-8"
        )
        raw = folder / "data" / "raw"
        raw.parent.mkdir(exist_ok=True)
        if not raw.is_symlink():
            raw.symlink_to((project / "data" / "raw").resolve(), target_is_directory=True)

    @staticmethod
    def _copy(source: Path, target: Path) -> None:
        if source.is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)

    def run(self, params: Mapping[str, Any], target: str) -> None:
        """`dvc repro` of one stage, and of what it needs, with these parameters; on one thread.

        Raises `ResultError` with the last line of the log where it fails.
        """
        with (self.folder / "params.yaml").open("w", encoding="utf-8") as file:
            YAML(typ="safe", pure=True).dump(dict(params), file)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        env = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        with self.log.open("w", encoding="utf-8") as log:
            self._running = subprocess.Popen(
                ["dvc", "repro", target],
                cwd=self.folder,
                env=env,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[self._lock],
            )
            failed = self._running.wait()
        if failed:
            lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            said = next((line for line in lines if line.startswith("error: ")), lines[-1] if lines else "")
            raise ResultError(f"{target}: {said} (all of it: {self.log})")

    def stop(self) -> None:
        """End the run, which fails; its DVC and its stages have ended then."""
        if self._running is not None:
            self._running.terminate()
            self._running.wait()

    def close(self) -> None:
        """Let other processes have the folder."""
        os.close(self._lock)
