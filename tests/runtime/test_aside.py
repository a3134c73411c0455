"""The state of a task that is done, until dvc has noted its result."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from mdprop.runtime.aside import forget_noted
from mdprop.runtime.state import State, remove_left_to, states_folder

IDENTITY = {"parameters": {"a": 1}}
ASIDE = Path(".dvc") / "tmp" / "mdprop"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_STAGE", "train")
    Path("model.json").write_text("the result")


def held() -> State:
    state = State("task", IDENTITY)
    assert state.acquire()
    return state


def done(launcher: int | None = None) -> State:
    """A task with one piece that ended well, with a result."""
    state = held()
    state.save("1", {}, {"epoch": 1})
    state.name_result(Path("model.json"))
    if launcher is None:
        state.finish()
    else:
        state.leave_to(launcher)
        state.release()
        remove_left_to(launcher)
    return state


@pytest.mark.parametrize("launcher", [None, 12])
@pytest.mark.parametrize("lock", [None, "outs: another result"])
def test_a_result_that_dvc_did_not_note_is_there_again(launcher: int | None, lock: str | None) -> None:
    done(launcher)
    assert not Path(".mdprop").exists()
    if lock is not None:
        Path("dvc.lock").write_text(lock)
    state = held()
    (path,) = state.paths()
    piece = state.load(path)
    assert piece is not None and piece.info == {"epoch": 1}
    assert not any(ASIDE.iterdir())


def noted() -> None:
    md5 = hashlib.md5(Path("model.json").read_bytes()).hexdigest()
    Path("dvc.lock").write_text(f"outs:\n- path: model.json\n  md5: {md5}\n")


def test_a_result_that_dvc_noted_is_made_again() -> None:
    done()
    noted()
    assert held().paths() == []
    assert not any(ASIDE.iterdir())


def test_it_goes_when_dvc_has_gone_on() -> None:
    done()
    forget_noted(states_folder())
    assert any(ASIDE.iterdir())
    noted()
    forget_noted(states_folder())
    assert not ASIDE.exists()


def test_without_dvc_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_STAGE")
    done()
    assert {path.name for path in Path().iterdir()} == {"model.json"}


def test_a_task_without_a_result_leaves_nothing() -> None:
    state = held()
    state.save("1", {}, {})
    state.finish()
    assert {path.name for path in Path().iterdir()} == {"model.json"}
