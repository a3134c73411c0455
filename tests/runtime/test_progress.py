from __future__ import annotations

import re
import sys
from collections.abc import Iterator

import pytest

from mdprop.runtime import progress
from mdprop.runtime.progress import announce, counting, track


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds by which each look at the clock moves it on."""
    steps = [1.0]
    now = 0.0

    def monotonic() -> float:
        nonlocal now
        now += steps[0]
        return now

    monkeypatch.setattr(progress.time, "monotonic", monotonic)
    return steps


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
    assert re.fullmatch(r"counting: 3 in \d+\.\d s, [\d,]+\.\d/s\n", output.err)


def test_away_from_a_terminal_there_is_a_line_every_ten_seconds(
    capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    clock[0] = 4.0
    assert list(track(range(9), "embedding")) == list(range(9))
    assert capsys.readouterr().err.splitlines() == [
        "embedding: 3/9, 4.0 s each, 24 s left",
        "embedding: 6/9, 4.0 s each, 12 s left",
        "embedding: 9 in 40.0 s, 4.4 s each",
    ]


def test_the_total_may_be_given_for_what_has_no_length(
    capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    clock[0] = 10.0
    assert list(track(iter("ab"), "reading", total=4)) == ["a", "b"]
    assert capsys.readouterr().err.splitlines()[0] == "reading: 1/4, 10.0 s each, 30 s left"


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
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    assert list(track(range(3), "counting")) == [0, 1, 2]
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("RANK", "0")
    assert list(track(range(3), "counting")) == [0, 1, 2]
    assert capsys.readouterr().err.startswith("counting: 3 in")


def test_batches_are_counted_by_what_is_in_them(
    capsys: pytest.CaptureFixture[str], clock: list[float]
) -> None:
    clock[0] = 6.0
    with counting("attack at/0", 6, "images") as count:
        for number, batches in enumerate(([2, 2], [2]), 1):
            count.at(f"set {number} of 2, {'ab'[number - 1]}")
            assert list(count.each(batches, size=lambda batch: batch)) == batches
    assert capsys.readouterr().err.splitlines() == [
        "attack at/0: set 1 of 2, a: 2/6 images, 6.0 s each, 24 s left",
        "attack at/0: set 2 of 2, b: 4/6 images, 6.0 s each, 12 s left",
        "attack at/0: 6 images in 36.0 s, 6.0 s each",
    ]


def test_on_a_terminal_the_part_of_the_task_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    with counting("embed at/0", 4, "images") as count:
        count.at("set 1 of 1, [clean]")
        assert list(count.each("ab", size=lambda batch: 2)) == ["a", "b"]
    shown = re.sub(r"\x1b\[[\d;?]*\w", "", capsys.readouterr().err)
    assert "embed at/0: set 1 of 1, [clean]" in shown
    assert "4/4 images" in shown


def test_a_bar_shows_a_rate_for_what_takes_minutes(clock: list[float]) -> None:
    clock[0] = 0.0
    now = [0.0]
    with progress._progress() as bar:
        bar.get_time = lambda: now[0]  # type: ignore[method-assign]
        row = bar.add_task("training", total=4, unit="")
        task = bar.tasks[0]
        task._get_time = bar.get_time
        bar.reset(row)
        assert str(progress._Rate().render(task)) == ""
        for done in (1, 2):
            now[0] += 120.0
            bar.update(row, completed=done)
        assert str(progress._Rate().render(task)) == "120.0 s each"
        assert task.time_remaining is not None


def test_an_announcement_is_made_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    announce("train at/0, run 1 of 2")
    assert capsys.readouterr().out == "train at/0, run 1 of 2\n"
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    announce("train at/0, run 1 of 2")
    assert capsys.readouterr().out == ""
