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
import os, signal, sys, time
from pathlib import Path
from mdprop.errors import ParameterError
from mdprop.parallel import launch
from mdprop.parallel.launch import in_processes
from mdprop.runtime import entrance
from mdprop.runtime.entrance import run_stage

@in_processes
def command():
    from mdprop.parallel.exchange import from_main, rank, world_size
    from mdprop.files import whole_file

    case, number = sys.argv[1], rank()
    with whole_file(Path(f"file {number}")) as file:
        file.write_text(f"{number} of {world_size()}, {os.environ['OMP_NUM_THREADS']} threads")
        if case == "mistake" and number == 1:  # the other one waits, and fails when this one is gone
            raise ParameterError("first half,\\nsecond half")
        if case == "late" and number == 1:
            raise ParameterError("said once")
        if case == "late":  # the agent's signal comes as the error for want of the other one is at its end
            def interrupted(error, store, end=launch._end):
                launch._end = end
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(60)
            launch._end = interrupted
        if case == "common mistake":
            raise ParameterError("wrong everywhere")
        if case == "bug" and number == 1:
            raise ValueError("a bug")
        if case == "killed" and number == 1:
            file.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        if case == "deaf":
            entrance._SECONDS_TO_END = 0.1
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if case.startswith("kept"):
            from mdprop.parallel.resume import kept
            with kept("task", {}) as state:
                pass
        if case in ("stopped", "deaf", "kept"):
            os.write(1, f"ready {os.getpid()}\\n".encode())  # whole: print may write it in pieces
            while True:  # a signal may come just before signal.pause(), which would not see it
                time.sleep(0.01)
        from_main(0)

if __name__ == "__main__":
    run_stage(command)
"""


TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")


def start(folder: Path, case: str, launcher: tuple[str, ...] = (), **variables: str) -> subprocess.Popen[str]:
    (folder / "program.py").write_text(PROGRAM)
    env = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    env |= {"PYTHONPATH": str(PROJECT), "MDPROP_PROCESSES": "2", "MDPROP_DEVICE": "cpu"}
    env |= {"TMPDIR": str(folder), **variables}
    command = [sys.executable, "-m", *launcher, "program", case]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=env, stdout=pipe, stderr=pipe, text=True)


def files(folder: Path) -> set[str]:
    """What a program has left, in its temporary folder too."""
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


def test_a_process_that_is_stopped_as_it_fails_says_nothing(tmp_path: Path) -> None:
    program = start(tmp_path, "late")
    assert program.communicate() == ("", "error: said once\n")
    assert program.returncode == 2
    assert files(tmp_path) == set()


def test_a_mistake_of_all_is_said_once(tmp_path: Path) -> None:
    program = start(tmp_path, "common mistake")
    assert program.communicate() == ("", "error: wrong everywhere\n")
    assert program.returncode == 2
    assert files(tmp_path) == set()


def test_a_bug_has_the_traceback_of_the_process_that_met_it(tmp_path: Path) -> None:
    program = start(tmp_path, "bug")
    _, err = program.communicate()
    assert err.count("Traceback") == 1
    assert err.endswith("ValueError: a bug\n")
    assert program.returncode == 1
    assert files(tmp_path) == set()


def test_torchrun_may_start_the_processes(tmp_path: Path) -> None:
    program = start(tmp_path, "well", TORCHRUN, OMP_NUM_THREADS="1")
    assert program.communicate()[0] == ""
    assert program.returncode == 0
    assert (tmp_path / "file 1").read_text() == "1 of 2, 1 threads"


def test_under_torchrun_a_mistake_is_said_once(tmp_path: Path) -> None:
    program = start(tmp_path, "mistake", TORCHRUN, OMP_NUM_THREADS="1")
    assert program.communicate()[1].count("error: first half, second half\n") == 1
    assert program.returncode != 0
    assert not files(tmp_path) & {"file 0", "file 1", ".file 0.partial", ".file 1.partial"}


def test_a_scheduler_s_rank_starts_nothing(tmp_path: Path) -> None:
    program = start(tmp_path, "well", MDPROP_PROCESSES="1", OMP_NUM_THREADS="1", RANK="3", LOCAL_RANK="1")
    assert program.communicate() == ("", "")
    assert (tmp_path / "file 0").read_text() == "0 of 1, 1 threads"


def test_where_one_process_is_killed_all_end(tmp_path: Path) -> None:
    program = start(tmp_path, "killed")
    _, err = program.communicate()
    assert err.splitlines()[-1] == "error: process 1 of 2 was killed by SIGKILL"
    assert program.returncode == 128 + signal.SIGKILL
    assert files(tmp_path) == set()


@pytest.mark.parametrize(("number", "err"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_what_is_stopped_leaves_nothing(tmp_path: Path, number: signal.Signals, err: str) -> None:
    program = start(tmp_path, "stopped")
    assert program.stdout is not None
    members = [int(program.stdout.readline().split()[1]) for _ in range(2)]
    program.send_signal(number)
    assert program.communicate()[1] == f"{err}: the same command goes on\n"
    assert program.returncode == 128 + number
    assert files(tmp_path) == set()
    for member in members:
        with pytest.raises(ProcessLookupError):
            os.kill(member, 0)


@pytest.mark.parametrize("starter", [(), TORCHRUN])
@pytest.mark.parametrize("case", ["stopped", "deaf"])
def test_where_their_launcher_is_killed_all_end(tmp_path: Path, case: str, starter: tuple[str, ...]) -> None:
    program = start(tmp_path, case, starter, OMP_NUM_THREADS="1")
    assert program.stdout is not None
    for _ in range(2):
        program.stdout.readline()
    program.kill()
    program.communicate(timeout=60)  # to the end of what they write to
    left = {name for name in files(tmp_path) if not name.startswith("torchelastic_")}
    assert left == (set() if case == "stopped" else {".file 0.partial", ".file 1.partial"})


def test_a_task_is_not_done_before_the_launcher_knows(tmp_path: Path) -> None:
    program = start(tmp_path, "kept")
    assert program.stdout is not None
    for _ in range(2):
        program.stdout.readline()
    program.kill()
    program.communicate(timeout=60)
    assert len(list(tmp_path.glob(".mdprop/state/task-*"))) == 1


def test_what_is_kept_goes_with_the_launcher(tmp_path: Path) -> None:
    program = start(tmp_path, "kept and done")
    assert program.communicate() == ("", "")
    assert program.returncode == 0
    assert files(tmp_path) == {"file 0", "file 1"}


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
    with pytest.raises(
        ParameterError, match=rf"^MDPROP_PROCESSES={value}: a number from 1 to \d+ is needed$"
    ):
        in_processes(lambda: None)()


def test_one_process_runs_the_command_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MDPROP_PROCESSES", raising=False)
    seen: list[int] = []
    in_processes(seen.append)(3)
    assert seen == [3]
