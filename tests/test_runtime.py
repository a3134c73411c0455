from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import mdprop
from mdprop import runtime
from mdprop.errors import ParameterError
from mdprop.runtime.hardware import device, is_main, workers
from mdprop.runtime.memory import keep_memory, trimmed
from mdprop.runtime.progress import track
from mdprop.runtime.provenance import provenance


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds by which each look at the clock moves it on."""
    steps = [1.0]
    now = 0.0

    def monotonic() -> float:
        nonlocal now
        now += steps[0]
        return now

    monkeypatch.setattr(runtime.time, "monotonic", monotonic)
    return steps


# --- progress ---


def test_items_are_passed_on_as_they_come(capsys: pytest.CaptureFixture[str]) -> None:
    taken: list[int] = []

    def source() -> Iterator[int]:
        for item in range(3):
            taken.append(item)
            yield item

    passed = track(source(), "counting")
    assert next(passed) == 0
    assert taken == [0]
    assert list(passed) == [1, 2]
    output = capsys.readouterr()
    assert output.out == ""
    assert re.fullmatch(r"counting: 3 in \d+\.\d s, \d+\.\d/s\n", output.err)


def test_away_from_a_terminal_there_is_a_line_every_ten_seconds(
    capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    clock[0] = 4.0
    assert list(track(range(9), "embedding")) == list(range(9))
    assert capsys.readouterr().err.splitlines() == [
        "embedding: 3/9, 0.2/s, 24 s left",
        "embedding: 6/9, 0.2/s, 12 s left",
        "embedding: 9 in 40.0 s, 0.2/s",
    ]


def test_the_total_may_be_given_for_what_has_no_length(
    capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    clock[0] = 10.0
    assert list(track(iter("ab"), "reading", total=4)) == ["a", "b"]
    assert capsys.readouterr().err.splitlines()[0] == "reading: 1/4, 0.1/s, 30 s left"


def test_without_a_total_no_time_is_left(capsys: pytest.CaptureFixture[str], clock: list[float]) -> None:
    clock[0] = 10.0
    list(track(iter("ab"), "reading"))
    assert all("left" not in line for line in capsys.readouterr().err.splitlines())


def test_nothing_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(track([], "reading")) == []
    assert capsys.readouterr().err.startswith("reading: 0 in 0.")


def test_on_a_terminal_there_is_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert list(track(range(5), "attacking")) == list(range(5))
    output = capsys.readouterr()
    assert output.out == ""
    assert "attacking" in output.err
    assert "5/5" in output.err


def test_an_error_goes_through(capsys: pytest.CaptureFixture[str]) -> None:
    def source() -> Iterator[int]:
        yield 0
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        list(track(source(), "counting"))
    assert capsys.readouterr().err == ""


def test_one_of_several_processes_shows_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    assert list(track(range(3), "counting")) == [0, 1, 2]
    assert not is_main()
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("RANK", "0")
    assert list(track(range(3), "counting")) == [0, 1, 2]
    assert is_main()
    assert capsys.readouterr().err.startswith("counting: 3 in")


# --- memory ---

KEPT = """
import sys
from pathlib import Path
import torch
from mdprop.runtime.memory import keep_memory, trimmed

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4 // 1024

if sys.argv[1] == "keep":
    keep_memory()
below, large, above = torch.ones(2**18), torch.ones(25 * 2**20), torch.ones(2**18)
full = resident()
del large
freed = full - resident()
list(trimmed(range(8)))
print(freed, full - resident())
"""


@pytest.mark.skipif(runtime._glibc("mallopt") is None, reason="not glibc")
@pytest.mark.parametrize("keep", ["keep", "plain"])
def test_freed_memory_is_kept_until_it_is_trimmed(keep: str) -> None:
    done = subprocess.run([sys.executable, "-c", KEPT, keep], capture_output=True, text=True, check=True)
    freed, trimmed_too = map(int, done.stdout.split())  # MiB, of 100
    assert freed < 10 if keep == "keep" else freed > 90
    assert trimmed_too > 90


def test_batches_are_passed_on_where_the_c_library_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.os, "name", "nt")
    assert list(trimmed(iter(range(20)))) == list(range(20))
    keep_memory()


# --- hardware ---


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """As the second of two processes on a machine with two GPUs; the devices that were asked for."""
    asked: list[str] = []

    def ones(size: int, device: str) -> torch.Tensor:
        asked.append(device)
        return torch.zeros(size)

    monkeypatch.setattr(torch, "ones", ones)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.delenv("MDPROP_DEVICE", raising=False)
    return asked


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch, two_gpus: list[str]) -> None:
    device()
    monkeypatch.setenv("MDPROP_DEVICE", "cuda")
    device()
    monkeypatch.setenv("MDPROP_DEVICE", "cpu")
    device()
    monkeypatch.delenv("MDPROP_DEVICE")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    device()
    assert two_gpus == ["cuda:1", "cuda:1", "cpu", "cuda"]


def test_processes_cannot_share_a_gpu(monkeypatch: pytest.MonkeyPatch, two_gpus: list[str]) -> None:
    monkeypatch.setenv("MDPROP_DEVICE", "cuda:0")
    with pytest.raises(
        ParameterError, match=r"^MDPROP_DEVICE=cuda:0: 2 processes need a GPU each; use cuda, "
    ):
        device()
    monkeypatch.setenv("MDPROP_DEVICE", "cuda")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(
        ParameterError, match=r"^3 processes need a GPU each and there are 2: lower MDPROP_PROC"
    ):
        device()


def test_the_device_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("MDPROP_DEVICE", "cpu")
    assert device() == torch.device("cpu")


@pytest.mark.parametrize("value", [None, ""])
def test_the_default_device_is_the_gpu_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    monkeypatch.delenv("MDPROP_DEVICE", raising=False)
    if value is not None:
        monkeypatch.setenv("MDPROP_DEVICE", value)
    assert device().type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("value", ["gpu", "cuda:99", "tpu0", "cpu, please"])
def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("MDPROP_DEVICE", value)
    with pytest.raises(
        ParameterError, match=rf"^MDPROP_DEVICE={value}: .+; use cpu, cuda or cuda:<number>$"
    ) as caught:
        device()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(("value", "count"), [(None, 0), ("", 0), ("0", 0), ("3", 3)])
def test_workers_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, value: str | None, count: int
) -> None:
    monkeypatch.delenv("MDPROP_WORKERS", raising=False)
    if value is not None:
        monkeypatch.setenv("MDPROP_WORKERS", value)
    assert workers() == count


@pytest.mark.parametrize("value", ["-1", "two", "1.5", "²"])
def test_workers_that_are_no_number(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("MDPROP_WORKERS", value)
    with pytest.raises(
        ParameterError, match=rf"^MDPROP_WORKERS={re.escape(value)}: a number from 0 is needed$"
    ):
        workers()


# --- provenance ---


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
