from __future__ import annotations

import re

import pytest
import torch

from mdprop.errors import ParameterError
from mdprop.runtime.hardware import check_torchrun, device, is_main, started_by_torchrun, workers

SECOND_OF_TWO = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}


def test_one_of_several_is_the_main_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECOND_OF_TWO.items():
        monkeypatch.setenv(name, value)
    assert started_by_torchrun() and not is_main()
    monkeypatch.setenv("RANK", "0")
    assert started_by_torchrun() and is_main()


@pytest.mark.parametrize("missing", SECOND_OF_TWO)
def test_a_rank_that_a_scheduler_sets_is_no_process_of_ours(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    for name, value in SECOND_OF_TWO.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("MDPROP_DEVICE", "cpu")
    monkeypatch.delenv(missing)
    assert is_main() and not started_by_torchrun()
    assert device() == torch.device("cpu")


@pytest.mark.parametrize("empty", SECOND_OF_TWO)
def test_a_variable_without_a_value_is_not_set(monkeypatch: pytest.MonkeyPatch, empty: str) -> None:
    for name, value in SECOND_OF_TWO.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(empty, "")
    assert is_main() and not started_by_torchrun()


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("RANK", "x", "0 to 1"),
        ("RANK", "2", "0 to 1"),
        ("RANK", "-1", "0 to 1"),
        ("WORLD_SIZE", "0", "1 to 1000000"),
        ("WORLD_SIZE", "9" * 5000, "1 to 1000000"),
        ("MASTER_PORT", "http", "0 to 65535"),
        ("MASTER_PORT", "70000", "0 to 65535"),
        ("LOCAL_WORLD_SIZE", "x", "1 to 1000000"),
        ("LOCAL_RANK", "", "0 to 1000000"),
    ],
)
def test_what_torchrun_would_not_set(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, allowed: str
) -> None:
    for other, number in SECOND_OF_TWO.items():
        monkeypatch.setenv(other, number)
    check_torchrun()
    monkeypatch.setenv(name, value)
    with pytest.raises(ParameterError, match=rf"^{name}={value}: a number from {allowed} is needed.*env -u "):
        check_torchrun()


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
    for name, value in {**SECOND_OF_TWO, "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
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


@pytest.mark.parametrize("value", ["-1", "two", "1.5", "²", "1000000", "9" * 5000])
def test_workers_that_are_no_number(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("MDPROP_WORKERS", value)
    with pytest.raises(
        ParameterError, match=rf"^MDPROP_WORKERS={re.escape(value)}: a number from 0 to \d+ is needed$"
    ):
        workers()
