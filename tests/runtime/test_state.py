"""What is kept of unfinished tasks: one process at a time, whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mdprop.errors import ParameterError
from mdprop.runtime.state import STATES, State, remove_left_to, states_folder, steps_between
from tests.helpers import PROJECT

IDENTITY = {"parameters": {"a": 1}, "code": "x"}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def held(name: str = "task", **changes: object) -> State:
    state = State(name, {**IDENTITY, **changes})
    assert state.acquire()
    return state


def test_what_is_saved_is_loaded() -> None:
    state = held()
    layers = {"a": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last), "b": torch.tensor(True)}
    info = {"curves": [0.1, 1e-300], "none": None}
    path = state.save("1", layers, info)
    piece = state.load(path)
    assert piece is not None
    assert (piece.path, piece.info, piece.tensors.keys()) == (path, info, layers.keys())
    assert all(torch.equal(piece.tensors[key], value) for key, value in layers.items())


def test_much_that_is_no_tensor_is_saved_too() -> None:
    state = held()
    info = {"curves": [str(number) for number in range(50_000)]}
    piece = state.load(state.save("1", {}, info))
    assert piece is not None and piece.info == info


def test_another_identity_has_another_folder() -> None:
    folders = {held(parameters={"a": a}, code=c).folder for a in (1, 2, "1") for c in ("x", "y")}
    assert len(folders) == 6
    assert (
        len({State("task", dict(order)).folder for order in (IDENTITY.items(), [*IDENTITY.items()][::-1])})
        == 1
    )


def test_one_at_a_time_and_who_waits_finds_what_was_done() -> None:
    first, second, third = held(), State("task", IDENTITY), State("task", IDENTITY)
    assert not second.acquire()
    assert not third.acquire()
    first.save("1", {}, {})
    first.finish()
    assert second.acquire()
    assert not third.acquire()
    assert len(second.paths()) == 1
    second.finish()
    assert third.acquire()
    assert len(third.paths()) == 1
    third.finish()
    assert not Path(".mdprop").exists()
    assert held().paths() == []


def test_who_gave_up_waiting_leaves_nothing() -> None:
    first, second = held(), State("task", IDENTITY)
    assert not second.acquire()
    second.release()
    first.finish()
    assert not Path(".mdprop").exists()


def test_other_tasks_keep_theirs() -> None:
    first, other = held(), held("other")
    first.finish()
    assert other.folder.exists()
    assert not first.folder.exists()


def test_what_others_left_is_named_with_what_differs() -> None:
    old = held(code="old")
    old.release()
    running = held(parameters={"a": 3})
    held("task-2").release()
    state = held()
    assert list(state.others()) == [(old.folder, ["code"])]
    running.release()
    assert sorted(differing for _, differing in state.others()) == [["code"], ["parameters"]]


HOLDER = """
import sys, time
from mdprop.runtime.state import State
state = State("task", {"parameters": {"a": 1}, "code": "x"})
assert state.acquire()
print("ready", flush=True)
time.sleep(60)
"""


def test_a_lock_goes_with_its_process() -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    state = State("task", IDENTITY)
    assert not state.acquire()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    deadline = time.monotonic() + 5
    while not state.acquire():
        assert time.monotonic() < deadline
    state.finish()
    assert not Path(".mdprop").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
def test_a_lock_is_not_that_of_processes_that_load_images() -> None:
    first = held()
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
    try:
        second = State("task", IDENTITY)
        assert not second.acquire()
        first.release()
        deadline = time.monotonic() + 5  # a new process lets go of it as soon as it runs
        while not second.acquire():
            assert time.monotonic() < deadline
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_what_is_done_may_be_left_to_another_process() -> None:
    first, others, taken, running = held(), held("others"), held("taken"), held("running")
    for state, process in ((first, 12), (others, 13), (taken, 12), (running, 12)):
        state.leave_to(process)
    for state in (first, others, taken):
        state.release()
    assert State("taken", IDENTITY).acquire()  # which takes it up again
    remove_left_to(12)
    assert not first.folder.exists()
    assert all(state.folder.exists() for state in (others, taken, running))


def test_copies_for_experiments_share_what_the_project_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert states_folder() == STATES
    copy = tmp_path / ".dvc" / "tmp" / "exps" / "standalone" / "tmp123"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    assert states_folder() == tmp_path / STATES


@pytest.mark.parametrize(("value", "steps"), [(None, 0), ("", 0), ("0", 0), ("25", 25)])
def test_steps_between_states(monkeypatch: pytest.MonkeyPatch, value: str | None, steps: int) -> None:
    monkeypatch.delenv("MDPROP_STATE_EVERY", raising=False)
    if value is not None:
        monkeypatch.setenv("MDPROP_STATE_EVERY", value)
    assert steps_between() == steps


@pytest.mark.parametrize("value", ["-1", "often", "1.5"])
def test_steps_that_are_no_number(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("MDPROP_STATE_EVERY", value)
    with pytest.raises(ParameterError, match=rf"^MDPROP_STATE_EVERY={value}: a number of steps from 0 is"):
        steps_between()
