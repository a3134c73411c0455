"""Making the runs of a study that are missing, one after the other or several at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any

from mdprop.config.schema import Params
from mdprop.errors import ParameterError
from mdprop.files import read_sealed_json
from mdprop.runs import Run
from mdprop.study.plan import Study, Unit, project_params, settings, unit_params, units
from mdprop.study.stored import state, store, stored_run
from mdprop.study.workspace import Workspace

WORKSPACES = Path(".mdprop/studies")


@dataclass(frozen=True)
class Task:
    """A run that is to be made, its params.yaml as plain values, and checked."""

    unit: Unit
    params: dict[str, Any]
    checked: Params

    @property
    def target(self) -> str:
        """The DVC stage that ends it."""
        family = self.checked.method(self.unit.method).family.replace("_", "-")
        return f"evaluate-{family}@{self.unit.method}-{self.unit.seed}"


def missing(
    study: Study, folder: Path, params: Path, groups: Sequence[str], say: Callable[[str], None]
) -> Iterator[Task]:
    """The runs that have no results, or whose settings have changed since, which `say` is told.

    groups: those of the study that are wanted; none: all. Raises `ParameterError` for an unknown one, and
    for a value that params.yaml does not take.
    """
    unknown = [name for name in groups if name not in study.runs]
    if unknown:
        raise ParameterError(f"{folder} has no runs '{unknown[0]}'; it has: {', '.join(study.runs)}")
    base = project_params(params)
    for unit in units(study):
        if groups and unit.group not in groups:
            continue
        values, checked = unit_params(study, unit, base)
        found = state(stored_run(folder, unit), settings(checked, unit.method))
        if found == "done":
            continue
        if found != "missing":
            say(f"{unit} is made again, as settings have changed: {found}")
        yield Task(unit, values, checked)


def make(tasks: Sequence[Task], folder: Path, project: Path, jobs: int, say: Callable[[str], None]) -> None:
    """Make all tasks, `jobs` at a time, each in a workspace below `WORKSPACES`, and keep what came out.

    Each is kept as soon as it is done. Raises the error of the first that fails, once those that run
    have ended; Ctrl-C and SIGTERM end them. The same call goes on.
    """
    free: SimpleQueue[Workspace] = SimpleQueue()
    keeping, done = Lock(), 0

    def one(task: Task) -> None:
        nonlocal done
        workspace, start = free.get(), time.monotonic()
        try:
            workspace.run(task.params, task.target)
            with keeping:
                seconds = round(time.monotonic() - start)
                _keep(task, workspace, folder, seconds)
                done += 1
                say(f"{done} of {len(tasks)}: {task.unit}, {seconds} s")
        finally:
            free.put(workspace)

    with ExitStack() as held:
        places = [project / WORKSPACES / f"{folder.name}-{n}" for n in range(min(jobs, len(tasks)))]
        workspaces = [held.enter_context(closing(Workspace(project, place))) for place in places]
        for workspace in workspaces:
            free.put(workspace)
        with ThreadPoolExecutor(max(1, len(workspaces))) as pool:
            running = [pool.submit(one, task) for task in tasks]
            try:
                for future in as_completed(running):
                    future.result()
            except BaseException as error:
                pool.shutdown(wait=False, cancel_futures=True)
                if not isinstance(error, Exception):
                    for workspace in workspaces:
                        workspace.stop()
                raise


def _keep(task: Task, workspace: Workspace, folder: Path, seconds: int) -> None:
    unit = task.unit
    run = Run(unit.method, unit.seed, workspace.folder / "runs")
    model = read_sealed_json(run.folder / "model.json", "run `mdprop study run` again")
    description = {
        "settings": settings(task.checked, unit.method),
        "provenance": model["provenance"],
        "processor": processor(),
        "threads": 1,
        "seconds": seconds,
    }
    store(run, stored_run(folder, unit), description)


def processor() -> str:
    """The name of this machine's processor, as Linux says it; elsewhere its kind."""
    import platform

    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()
