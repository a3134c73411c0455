"""Commands in processes of their own that start within milliseconds: forks of one that has imported all."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.helpers import PROJECT


class Done(NamedTuple):
    """How a command ended. lines: of standard error, without those that say how far it was."""

    code: int
    out: str
    lines: list[str]


class Forks:
    """Runs `stages.<name> ...` and `mdprop ...` in `folder`."""

    def __init__(self, server: subprocess.Popen[str]) -> None:
        self._server = server

    def run(self, folder: Path, *command: str, largest_file: int | None = None) -> Done:
        """largest_file: bytes that a file may have; beyond, the system refuses with "File too large"."""
        assert self._server.stdin and self._server.stdout
        order = {"folder": str(folder), "command": command, "limit": largest_file}
        print(json.dumps(order), file=self._server.stdin, flush=True)
        code, out, err = json.loads(self._server.stdout.readline())
        return Done(code, out, [line for line in err.splitlines() if not line.startswith(_PROGRESS)])


_STAGES = ("train", "attack", "surrogate", "embed", "evaluate")
_PROGRESS = ("preparing ", *(f"{stage} " for stage in _STAGES), "standard, epoch", "mdprop, epoch", "note: ")


@contextlib.contextmanager
def forks() -> Iterator[Forks]:
    command = [sys.executable, "-m", "tests.campaigns.forks"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)}
    with subprocess.Popen(
        command, cwd=PROJECT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        yield Forks(server)
        assert server.stdin
        server.stdin.close()


# --- in the server ---


def _serve() -> None:
    from mdprop.runtime.entrance import tune_libraries

    tune_libraries()
    _import_all()
    for line in sys.stdin:
        order = json.loads(line)
        pipes = [os.pipe(), os.pipe()]  # which know no largest file
        child = os.fork()
        if child == 0:
            for number, (_, end) in enumerate(pipes, 1):
                os.dup2(end, number)
            _run(order)
        for _, end in pipes:
            os.close(end)
        with ThreadPoolExecutor() as pool:
            texts = list(pool.map(_read, (start for start, _ in pipes)))
        _, status = os.waitpid(child, 0)
        print(json.dumps([os.waitstatus_to_exitcode(status), *texts]), flush=True)


def _read(pipe: int) -> str:
    with open(pipe, encoding="utf-8") as file:
        return file.read()


def _import_all() -> None:
    import importlib

    import dvclive  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import sklearn.cluster  # noqa: F401

    for path in sorted((PROJECT / "mdprop").rglob("*.py")):
        name = ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")
        if not name.endswith("__main__"):
            importlib.import_module(name)


def _run(order: dict[str, object]) -> None:
    """Run one command as its own program would, and end."""
    import importlib
    import resource
    import runpy
    import traceback

    program, *arguments = order["command"]  # type: ignore[misc]
    os.chdir(str(order["folder"]))
    if order["limit"] is not None:
        most = int(str(order["limit"]))
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    module = "mdprop" if program == "mdprop" else f"stages.{program}"
    importlib.invalidate_caches()
    sys.argv = [program, *arguments]
    code = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # without taking apart all that was imported


if __name__ == "__main__":
    _serve()
