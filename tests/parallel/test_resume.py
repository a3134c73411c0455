"""Trainings and files of two processes that were interrupted, against those that were not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from mdprop.data.stores.images import ImageStore
from mdprop.files import sealed_file
from mdprop.parallel import parts as parts_module
from mdprop.parallel.exchange import from_main, rank, world_size
from mdprop.parallel.parts import Parts
from mdprop.parallel.resume import kept
from mdprop.runtime.state import states_folder
from mdprop.seals import BLANK
from tests.helpers import small_store
from tests.parallel.together import Cases, Results
from tests.training.interrupted import CASES as TRAININGS
from tests.training.interrupted import EPOCHS, STEPS, Curves, Killed, begun

CASES = Cases()
TURNS = 13


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("resume")
    small_store(path / "store.arrow", classes=4, images=6)
    return path


@CASES.case("trainings")
def trainings(folder: Path) -> Any:
    found = {}
    for case, every in (("one cycle", "0"), ("drawing", "2"), ("counting", "2")):
        with pytest.MonkeyPatch.context() as patch:
            place = folder / f"{case} by {world_size()}"  # one process may be at the next case already
            place.mkdir(exist_ok=True)
            patch.chdir(place)
            patch.setenv("MDPROP_STATE_EVERY", every)
            store = ImageStore(folder / "store.arrow")
            whole_curves: Curves = []
            curves: Curves = []
            whole = begun(store, case, curves=whole_curves)
            for stop in (STEPS + 2, STEPS + 1):
                from_main(None)  # both are done with the state
                torch.rand(rank() + stop)
                with pytest.raises(Killed):
                    begun(store, case, stop, curves)
            from_main(None)
            resumed = begun(store, case, curves=curves)
            from_main(None)
            found[case] = whole, resumed, whole_curves == curves, len(curves), states_folder().exists()
    return found


@pytest.mark.parametrize("case", ["one cycle", "drawing", "counting"])
def test_a_training_ends_as_if_it_was_never_interrupted(
    both: list[Results], alone: Results, case: str
) -> None:
    assert case in TRAININGS
    for results in (*both, alone):
        whole, resumed, same_curves, epochs, left = results["trainings"][case]
        assert_close(resumed, whole, rtol=0, atol=0)
        assert (same_curves, epochs, left) == (True, EPOCHS, False)


# --- files ---


class Result(tuple[Tensor, ...]):
    """As the results of attacks and embeddings: some arrays."""


def written(place: Path, results: Iterable[Result]) -> None:
    with sealed_file(place) as partial:
        texts = [f"{number.item()} {values.tolist()}" for number, values in results]
        partial.write_text("\n".join([BLANK, *texts]))


def made(log: list[int], own: slice, stop: int | None = None) -> Iterator[Result]:
    for number in range(TURNS)[own]:
        if number == stop:
            raise Killed
        log.append(number)
        yield Result((torch.tensor(number), torch.arange(number)))


def make(file: Path, log: list[int], stop: int | None = None) -> None:
    with kept("parts", {"of": "a test"}) as state:
        parts = Parts(state)
        for name in parts.left({"task": (file,)}):
            assert name == "task"
            parts.write((file,), partial(written, file), partial(made, log, stop=stop), Result)


@CASES.case("parts")
def in_parts(folder: Path) -> Any:
    """A file whose making ended before it was kept; some of the pieces are lost. What was made each time."""
    logs: list[list[int]] = [[], [], []]
    place = folder / f"by {world_size()}"
    place.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(parts_module, "SECONDS_BETWEEN_PIECES", 0.0)
        make(Path("whole.txt"), logs[0])
        from_main(None)
        with pytest.raises(Killed), pytest.MonkeyPatch.context() as kill:
            kill.setattr(Parts, "_done", stopped)
            make(Path("again.txt"), logs[1])
        from_main(None)
        if rank() == 0:
            for path in sorted(states_folder().rglob("*.safetensors"))[::3]:
                path.unlink()
        from_main(None)
        make(Path("again.txt"), logs[2])
        from_main(None)
        return logs, states_folder().exists()


def stopped(self: Parts, name: str, files: Sequence[Path]) -> None:
    raise Killed


def test_pieces_that_are_there_are_not_made_again(folder: Path, both: list[Results], alone: Results) -> None:
    for results, processes in ((both, 2), ([alone], 1)):
        found = [result["parts"] for result in results]
        whole, first, second = (sorted(n for logs, _ in found for n in logs[time]) for time in range(3))
        assert whole == first == list(range(TURNS))
        assert len(second) == len(range(0, TURNS, 3))
        assert [left for _, left in found] == [False] * processes
    texts = [(folder / f"by {n}" / f"{name}.txt").read_text() for n in (1, 2) for name in ("whole", "again")]
    assert texts[0].count("\n") == TURNS
    assert len(set(texts)) == 1


# --- in one process ---


def interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int) -> list[int]:
    """What was made of a file before the turn `stop`, which was killed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(parts_module, "SECONDS_BETWEEN_PIECES", 0.0)
    log: list[int] = []
    with pytest.raises(Killed):
        make(Path("file.txt"), log, stop)
    return log


def test_a_file_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert interrupted(tmp_path, monkeypatch, 5) == list(range(5))
    assert not Path("file.txt").exists()
    log: list[int] = []
    make(Path("file.txt"), log)
    assert log == list(range(5, TURNS))
    make(Path("other.txt"), [])
    assert Path("file.txt").read_text() == Path("other.txt").read_text()
    assert not Path(".mdprop").exists()


def test_a_damaged_piece_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    interrupted(tmp_path, monkeypatch, 5)
    piece = sorted(states_folder().rglob("*.safetensors"))[2]
    content = bytearray(piece.read_bytes())
    content[-3] ^= 4
    piece.write_bytes(content)
    log: list[int] = []
    make(Path("file.txt"), log)
    assert log == [2, *range(5, TURNS)]
    assert f"note: {piece} is damaged" in capfd.readouterr().err


def test_more_than_memory_may_hold_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "LARGEST_PIECE", 0)
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(parts_module.time, "monotonic", lambda: next(clock))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Killed):
        make(Path("file.txt"), [], 7)
    log: list[int] = []
    make(Path("file.txt"), log)
    assert log == [0, 2, 4, *range(6, TURNS)]  # every other one comes 30 seconds after the last


def made_and_killed(file: Path, log: list[int]) -> str:
    """Write the whole file and die before the task is done; what the file holds."""
    with pytest.raises(Killed), kept("parts", {"of": "a test"}) as state:
        Parts(state).write((file,), partial(written, file), partial(made, log), Result)
        raise Killed
    return file.read_text()


def test_a_whole_file_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file, log = Path("out/file.txt"), list[int]()
    text = made_and_killed(file, log)
    file.unlink()  # as DVC does before it runs a stage again
    make(file, log)
    assert log == list(range(TURNS))
    assert file.read_text() == text
    assert file.stat().st_nlink == 1
    assert not Path(".mdprop").exists()


def test_a_whole_file_that_was_damaged_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file, log = Path("file.txt"), list[int]()
    text = made_and_killed(file, log)
    file.write_text(text.replace("3", "4"))
    make(file, log)
    assert log == 2 * list(range(TURNS))
    assert file.read_text() == text
