"""What is kept of a training, what is refused of it, and what stops one."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mdprop.data.stores.images import ImageStore
from mdprop.errors import DiskError, ParameterError
from mdprop.runtime.state import State, states_folder
from tests.helpers import small_store, train_settings
from tests.training.interrupted import EPOCHS, STEPS, Curves, Killed, assert_same, begun


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ImageStore:
    return small_store(tmp_path_factory.mktemp("store") / "train.arrow", classes=4, images=6)


# --- states that are not whole ---


def interrupted(store: ImageStore, epochs: int = 2) -> list[Path]:
    """The states of a training that was killed in the epoch after these."""
    with pytest.raises(Killed):
        begun(store, stop=epochs * STEPS + 2)
    return sorted(states_folder().rglob("*.safetensors"))


def test_the_last_two_states_are_kept(store: ImageStore) -> None:
    assert [path.name for path in interrupted(store)] == [
        "00000001-00000000.safetensors",
        "00000002-00000000.safetensors",
    ]


def flip(path: Path, draw: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def truncate(path: Path, draw: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: draw.randrange(path.stat().st_size)])


def exchange(path: Path, draw: random.Random) -> None:
    """A whole state of another task in its place."""
    other = State("other", {"of": draw.random()})
    other.folder.mkdir()
    path.write_bytes(other.save("0", {"losses": torch.zeros(STEPS)}, {}).read_bytes())
    for file in other.folder.iterdir():
        file.unlink()
    other.folder.rmdir()


def replace(path: Path, draw: random.Random) -> None:
    path.write_text("what people write" * draw.randint(0, 99))


@pytest.mark.parametrize("damage", [flip, truncate, exchange, replace], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("seed", range(2))
def test_of_a_damaged_state_the_one_before_is_used(
    store: ImageStore,
    capfd: pytest.CaptureFixture[str],
    damage: Callable[[Path, random.Random], None],
    seed: int,
) -> None:
    expected = begun(store)
    first, last = interrupted(store)
    damage(last, random.Random(seed))
    capfd.readouterr()
    with pytest.raises(Killed):
        begun(store, stop=1)
    notes = [line for line in capfd.readouterr().err.splitlines() if line.startswith("note: ")]
    assert len(notes) == 2
    assert notes[0].startswith(f"note: {last} ") and notes[0].endswith(": it is not used")
    assert notes[1].endswith(f"training goes on after epoch 1, from {first}")
    damage(first, random.Random(seed))
    assert_same(begun(store), expected)
    notes = [line for line in capfd.readouterr().err.splitlines() if line.startswith("note: ")]
    assert [str(first) in notes[1], str(last) in notes[0], len(notes)] == [True, True, 2]
    assert not states_folder().parent.exists()


def test_a_state_of_something_else_is_not_used_and_said(
    store: ImageStore, capfd: pytest.CaptureFixture[str]
) -> None:
    interrupted(store)
    (folder,) = states_folder().iterdir()
    capfd.readouterr()
    whole_curves: Curves = []
    begun(store, curves=whole_curves, identity={"of": "another", "code": "new"})
    notes = [line for line in capfd.readouterr().err.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1
    assert notes[0].startswith(
        f"note: {folder} is the state of an interrupted train-plain with other code, of: "
    )
    assert list(states_folder().iterdir()) == [folder]
    with pytest.raises(Killed):
        begun(store, stop=STEPS)
    begun(store, stop=STEPS + 1)


# --- numbers that are none ---


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 1e38}, r"the loss is nan at step 2 of epoch 1"),
        ({"weight_decay": 1e300}, r"the loss is nan at step 2 of epoch 1"),
    ],
)
@pytest.mark.parametrize("case", ["plain", "one cycle"])
def test_a_training_that_diverges_stops_in_one_line(
    store: ImageStore, options: dict[str, Any], message: str, case: str
) -> None:
    usual = train_settings(epochs=EPOCHS, schedule="one_cycle" if case == "one cycle" else "constant")
    settings = usual.model_copy(update=options)  # more than params.yaml may say
    with pytest.raises(ParameterError, match=rf"training diverged: {message}; lower train.learning_rate \("):
        begun(store, case, settings=settings)


def test_weights_that_break_in_the_last_step_are_met(
    store: ImageStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Breaking(torch.optim.Adam):
        steps = 0

        def step(self, closure: Any = None) -> Any:
            super().step(closure)
            Breaking.steps += 1
            if Breaking.steps == STEPS * EPOCHS:
                self.param_groups[0]["params"][0].data[0] = torch.inf

    monkeypatch.setattr(torch.optim, "Adam", Breaking)
    with pytest.raises(ParameterError, match=r"network\.\S+ is not finite after step 3 of epoch 3; lower"):
        begun(store)
    assert len(list(states_folder().rglob("*.safetensors"))) == 2  # the last good ones


# --- disks ---


def test_a_full_disk_keeps_the_last_state(store: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = begun(store)
    write = Path.write_bytes

    def refuse(self: Path, content: Any) -> int:
        if ".00000002" in self.name and len(content):
            write(self, content[:1000])
            raise OSError(28, "No space left on device")
        return write(self, content)

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(DiskError, match=r"00000002-00000000\.safetensors cannot be written \(No space left"):
        begun(store)
    assert [path.name for path in states_folder().rglob("*.safetensors")] == ["00000001-00000000.safetensors"]
    assert not list(states_folder().rglob("*.partial"))
    monkeypatch.setattr(Path, "write_bytes", write)
    assert_same(begun(store), expected)


def test_where_a_curve_cannot_be_written_no_epoch_is_lost(store: ImageStore) -> None:
    class Full(list[Any]):
        def append(self, item: Any) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        begun(store, curves=Full())
    with pytest.raises(Killed):
        begun(store, stop=2 * STEPS)
    begun(store, stop=2 * STEPS)
