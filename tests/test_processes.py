"""Starting and ending several processes, with a program that does little but that."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mdprop.errors import ParameterError
from mdprop.parallel.launch import in_processes, processes
from tests.helpers import PROJECT

PROGRAM = """
import os, signal, sys
from pathlib import Path
from mdprop.errors import ParameterError, reports_errors
from mdprop.parallel.launch import in_processes

@in_processes
def command():
    from mdprop.parallel.exchange import from_main, rank, world_size
    from mdprop.files import whole_file

    case, number = sys.argv[1], rank()
    with whole_file(Path(f"file {number}")) as file:
        file.write_text(f"{number} of {world_size()}, {os.environ['OMP_NUM_THREADS']} threads")
        if case == "mistake" and number == 1:  # the other one waits, and fails when this one is gone
            raise ParameterError("first half,\\nsecond half")
        if case == "killed" and number == 1:
            file.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        if case == "stopped":
            os.write(1, f"ready {os.getpid()}\\n".encode())  # whole: print may write it in pieces
            signal.pause()
        from_main(0)

if __name__ == "__main__":
    reports_errors(command)()
"""


def start(folder: Path, case: str, **variables: str) -> subprocess.Popen[str]:
    (folder / "program.py").write_text(PROGRAM)
    env = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    env |= {"PYTHONPATH": str(PROJECT), "MDPROP_PROCESSES": "2", "MDPROP_DEVICE": "cpu", **variables}
    command = [sys.executable, "-m", "program", case]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=env, stdout=pipe, stderr=pipe, text=True)


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"program.py", "__pycache__"}


def test_each_process_runs_the_command(tmp_path: Path) -> None:
    program = start(tmp_path, "well", OMP_NUM_THREADS="3")
    assert program.communicate() == ("", "")
    assert program.returncode == 0
    assert files(tmp_path) == {"file 0", "file 1"}
    assert (tmp_path / "file 0").read_text() == "0 of 2, 3 threads"
    assert (tmp_path / "file 1").read_text() == "1 of 2, 3 threads"


def test_a_mistake_is_said_once_and_nothing_is_left(tmp_path: Path) -> None:
    program = start(tmp_path, "mistake")
    assert program.communicate() == ("", "error: first half, second half\n")
    assert program.returncode == 2
    assert files(tmp_path) == set()


def test_where_one_process_is_killed_all_end(tmp_path: Path) -> None:
    program = start(tmp_path, "killed")
    _, err = program.communicate()
    assert err.splitlines()[-1] == "error: process 1 of 2 was killed by SIGKILL"
    assert program.returncode == 128 + signal.SIGKILL
    assert files(tmp_path) == set()


def test_an_interrupt_stops_all_and_leaves_nothing(tmp_path: Path) -> None:
    program = start(tmp_path, "stopped")
    assert program.stdout is not None
    members = [int(program.stdout.readline().split()[1]) for _ in range(2)]
    program.send_signal(signal.SIGINT)
    assert program.communicate()[1] == "interrupted\n"
    assert program.returncode == 130
    assert files(tmp_path) == set()
    for member in members:
        with pytest.raises(ProcessLookupError):
            os.kill(member, 0)


@pytest.mark.parametrize(("value", "count"), [(None, 1), ("", 1), ("1", 1), ("4", 4)])
def test_processes_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, value: str | None, count: int
) -> None:
    monkeypatch.delenv("MDPROP_PROCESSES", raising=False)
    if value is not None:
        monkeypatch.setenv("MDPROP_PROCESSES", value)
    assert processes() == count


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_processes_that_are_no_number(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("MDPROP_PROCESSES", value)
    with pytest.raises(ParameterError, match=rf"^MDPROP_PROCESSES={value}: a number from 1 is needed$"):
        in_processes(lambda: None)()


def test_one_process_runs_the_command_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MDPROP_PROCESSES", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    seen: list[int] = []
    in_processes(seen.append)(3)
    assert seen == [3]
