from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mdprop.runtime.entrance import at_last
from tests.helpers import PROJECT

PROGRAM = """
import os, signal, sys, time
from pathlib import Path
from mdprop.errors import DataError
from mdprop.files import whole_file
from mdprop.runtime.entrance import at_last, run_stage

def stop():
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)

def stage():
    assert not {"torch", "pyarrow", "numpy"} & set(sys.modules)
    if sys.argv[1] == "show":
        print("ε ± 1", os.environ["GOMP_SPINCOUNT"], os.environ["ARROW_DEFAULT_MEMORY_POOL"])
        print("ε", file=sys.stderr)
    if sys.argv[1].startswith("last"):
        at_last(Path("results").unlink)
        if sys.argv[1] == "last, and too late a stop":
            at_last(stop)
        assert Path("results").exists()
    if sys.argv[1] == "orphaned":
        parent = os.getppid()
        print("ready", flush=True)
        try:
            while os.getppid() == parent or "DVC_STAGE" in os.environ:
                time.sleep(0.01)
        finally:
            Path("ended").touch()
    if sys.argv[1] in ("mistake", "last, mistake"):
        raise DataError("no ε\\nhere")
    if sys.argv[1] == "stop":
        with whole_file(Path("results")) as file:
            file.write_text("half")
            print("ready", flush=True)
            while True:  # a signal may come just before signal.pause(), which would not see it
                time.sleep(0.01)

run_stage(stage)
"""

TUNED = ("GOMP_SPINCOUNT", "ARROW_DEFAULT_MEMORY_POOL")


def start(folder: Path, case: str, encoding: str = "utf-8", **variables: str) -> subprocess.Popen[str]:
    env = {key: value for key, value in os.environ.items() if key not in TUNED}
    env |= {"PYTHONPATH": str(PROJECT), **variables}
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", PROGRAM, case]
    return subprocess.Popen(command, cwd=folder, env=env, stdout=pipe, stderr=pipe, encoding=encoding)


def test_libraries_are_tuned_before_they_are_loaded(tmp_path: Path) -> None:
    done = start(tmp_path, "show", PYTHONIOENCODING="utf-8")
    assert done.communicate() == ("ε ± 1 10000 system\n", "ε\n")


def test_what_the_environment_says_goes_first(tmp_path: Path) -> None:
    done = start(tmp_path, "show", PYTHONIOENCODING="utf-8", GOMP_SPINCOUNT="5")
    assert done.communicate()[0] == "ε ± 1 5 system\n"


@pytest.mark.parametrize(("encoding", "shown"), [("ascii", "? ? 1"), ("latin-1", "? ± 1")])
def test_streams_show_what_they_can(tmp_path: Path, encoding: str, shown: str) -> None:
    done = start(tmp_path, "show", encoding, PYTHONIOENCODING=encoding)
    assert done.communicate() == (f"{shown} 10000 system\n", "?\n")
    assert done.returncode == 0


def test_a_mistake_is_one_line(tmp_path: Path) -> None:
    done = start(tmp_path, "mistake", PYTHONIOENCODING="ascii")
    assert done.communicate() == ("", "error: no ? here\n")
    assert done.returncode == 2


@pytest.mark.parametrize(("number", "err"), [(signal.SIGTERM, "terminated"), (signal.SIGINT, "interrupted")])
def test_stopped_it_leaves_nothing_half_written(tmp_path: Path, number: signal.Signals, err: str) -> None:
    program = start(tmp_path, "stop")
    assert program.stdout is not None
    program.stdout.readline()
    program.send_signal(number)
    assert program.communicate()[1] == f"{err}: the same command goes on\n"
    assert program.returncode == 128 + number
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("case", "left"), [("last", False), ("last, mistake", True), ("last, and too late a stop", False)]
)
def test_last_steps_are_those_of_a_stage_that_did_well(tmp_path: Path, case: str, left: bool) -> None:
    (tmp_path / "results").touch()
    program = start(tmp_path, case, DVC_STAGE="stage")
    said = program.communicate()[1]
    assert program.returncode == 2 * left
    assert (tmp_path / "results").exists() == left
    assert said == "error: no ε here\n" * left


def test_without_a_stage_the_last_step_is_at_once() -> None:
    done: list[int] = []
    at_last(lambda: done.append(1))
    assert done == [1]


PARENT = "import subprocess, sys; subprocess.run([sys.executable, '-c', *sys.argv[1:]])"


def orphan(folder: Path, case: str, **variables: str) -> str:
    """Kill what started a stage; what the stage then says, to its end."""
    env = {key: value for key, value in os.environ.items() if key != "DVC_STAGE"}
    env |= {"PYTHONPATH": str(PROJECT), **variables}
    pipe, command = subprocess.PIPE, [sys.executable, "-c", PARENT, PROGRAM, case]
    parent = subprocess.Popen(command, cwd=folder, env=env, stdout=pipe, stderr=pipe, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    parent.kill()
    return parent.communicate(timeout=60)[1]


def test_a_stage_ends_with_its_dvc(tmp_path: Path) -> None:
    assert orphan(tmp_path, "orphaned", DVC_STAGE="stage") == "terminated: the same command goes on\n"
    assert (tmp_path / "ended").exists()


def test_without_dvc_it_outlives_who_started_it(tmp_path: Path) -> None:
    assert orphan(tmp_path, "orphaned") == ""
    assert (tmp_path / "ended").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no such device here")
def test_a_log_on_a_full_disk_is_one_line(tmp_path: Path) -> None:
    env = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    env["PYTHONPATH"] = str(PROJECT)
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, "show"], env=env, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 2
    *_, line = done.stderr.splitlines()
    assert line.startswith("error: standard output cannot be written (No space left on device): free space")
    assert "Exception" not in done.stderr
