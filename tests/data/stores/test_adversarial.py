from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from mdprop.data.stores.adversarial import (
    Attacked,
    attack_settings,
    outcomes_file,
    read_adversarial,
    read_outcomes,
    write_adversarial,
)
from mdprop.errors import DataError
from mdprop.seals import BLANK, seal

SETTINGS = {"goal": "multi_target", "epsilon": 0.05, "units": "pixel", "steps": 10}


def attacked(ids: torch.Tensor, labels: torch.Tensor, images: torch.Tensor) -> Attacked:
    """With an objective of a tenth of the id, looking at the two ids that follow."""
    aims = torch.stack([ids + 1, ids + 2])
    numbers = (ids.float() / n for n in (10, 20, 30, 40))
    return Attacked(ids, labels, images, *numbers, aims, ids > 102, ids < 101)


def batches(*sizes: int, channels: int = 1) -> list[Attacked]:
    generator = torch.Generator().manual_seed(0)
    found, first = [], 100
    for size in sizes:
        ids = torch.arange(first, first + size)
        found.append(attacked(ids, ids // 3, torch.rand(size, channels, 5, 4, generator=generator)))
        first += size
    return found


@pytest.mark.parametrize("channels", [1, 3])
def test_what_was_written_is_read_bit_by_bit(tmp_path: Path, channels: int) -> None:
    written = batches(3, 3, 1, channels=channels)
    path = tmp_path / "new" / "set.arrow"
    write_adversarial(path, written, SETTINGS)
    read = list(read_adversarial(path))
    assert [len(ids) for ids, _, _ in read] == [3, 3, 1]
    for batch, expected in zip(read, written, strict=True):
        for tensor, value in zip(batch, expected[:3], strict=True):
            assert tensor.dtype == value.dtype
            assert torch.equal(tensor, value)
    assert attack_settings(path) == SETTINGS
    assert sorted(p.name for p in path.parent.iterdir()) == ["set.arrow", "set.outcomes.arrow"]


def test_an_epsilon_that_8_bits_cannot_hold_is_kept(tmp_path: Path) -> None:
    ids, labels, images, *_ = batches(2)[0]
    write_adversarial(tmp_path / "a.arrow", [attacked(ids, labels, images + 1e-6)], SETTINGS)
    ((_, _, read),) = read_adversarial(tmp_path / "a.arrow")
    assert torch.equal(read, images + 1e-6)
    assert not torch.equal(read, images)


def test_images_in_another_memory_format(tmp_path: Path) -> None:
    ids, labels, images, *_ = batches(3, channels=3)[0]
    moved = images.contiguous(memory_format=torch.channels_last)
    write_adversarial(tmp_path / "a.arrow", [attacked(ids, labels, moved)], SETTINGS)
    ((_, _, read),) = read_adversarial(tmp_path / "a.arrow")
    assert torch.equal(read, images)


def test_the_tensors_can_be_written_to(tmp_path: Path) -> None:
    write_adversarial(tmp_path / "a.arrow", batches(2), SETTINGS)
    for _, _, images in read_adversarial(tmp_path / "a.arrow"):
        images.zero_()
    ((_, _, again),) = read_adversarial(tmp_path / "a.arrow")
    assert torch.equal(again, batches(2)[0][2])


def test_one_batch_is_in_memory_at_a_time(tmp_path: Path) -> None:
    alive: list[weakref.ref[torch.Tensor]] = []

    def stream() -> Iterator[Attacked]:
        for number in range(5):
            images = torch.rand(2, 1, 4, 4)
            alive.append(weakref.ref(images))
            yield attacked(torch.arange(2) + number, torch.zeros(2).long(), images)
            del images
            assert sum(reference() is not None for reference in alive) <= 1

    write_adversarial(tmp_path / "a.arrow", stream(), SETTINGS)
    assert len(alive) == 5


def test_the_same_batches_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_adversarial(tmp_path / name, batches(3, 2), SETTINGS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_no_images_are_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    with pytest.raises(DataError, match=rf"^{path}: there are no images to attack$"):
        write_adversarial(path, [], SETTINGS)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_keeps_the_old_set_and_nothing_else(tmp_path: Path) -> None:
    def broken() -> Iterator[Attacked]:
        yield from batches(2)
        raise RuntimeError("out of memory")

    path = tmp_path / "a.arrow"
    write_adversarial(path, batches(3), SETTINGS)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(RuntimeError, match="out of memory"):
        write_adversarial(path, broken(), SETTINGS)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_missing_set(tmp_path: Path) -> None:
    path = tmp_path / "none.arrow"
    with pytest.raises(DataError, match=rf"^{path} does not exist: run the attack stage first$"):
        next(read_adversarial(path))
    with pytest.raises(
        DataError, match=rf"^{outcomes_file(path)} does not exist: run the attack stage first$"
    ):
        attack_settings(path)


def test_the_batches_of_some_turns(tmp_path: Path) -> None:
    write_adversarial(tmp_path / "a.arrow", batches(3, 3, 3, 3, 1), SETTINGS)
    read = list(read_adversarial(tmp_path / "a.arrow", slice(1, None, 2)))
    assert [ids.tolist() for ids, _, _ in read] == [[103, 104, 105], [109, 110, 111]]


@pytest.mark.parametrize("share", [0, 0.4, 0.99])
def test_a_truncated_set(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.arrow"
    write_adversarial(path, batches(3, 3), SETTINGS)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(
        DataError,
        match=rf"^{path} is damaged, or of another.* no seal: run the attack stage again$"
        if not share
        else rf"^{path} is damaged: .*: run the attack stage again$",
    ):
        list(read_adversarial(path))


def test_outcomes_are_read_without_the_images(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    write_adversarial(path, batches(3, 2), SETTINGS)
    found = read_outcomes(path)
    assert found.ids.tolist() == [100, 101, 102, 103, 104]
    np.testing.assert_allclose(found.objective, [10, 10.1, 10.2, 10.3, 10.4], rtol=1e-6)
    assert found.aims.tolist() == [[101, 102, 103, 104, 105], [102, 103, 104, 105, 106]]
    assert found.zero_gradient.tolist() == [False, False, False, True, True]
    assert found.broken_gradient.tolist() == [True, False, False, False, False]


def test_a_goal_that_looks_at_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    write_adversarial(path, [part._replace(aims=part.aims[:0]) for part in batches(3)], SETTINGS)
    assert read_outcomes(path).aims.shape == (0, 3)


def test_a_set_of_an_older_version_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    old = pa.record_batch([pa.array([1]), pa.array([0])], ["id", "label"], metadata={"seal": BLANK})
    for file in (path, outcomes_file(path)):
        with pa.ipc.new_file(str(file), old.schema) as writer:
            writer.write_batch(old)
    for read in (read_outcomes, attack_settings, lambda path: list(read_adversarial(path))):
        with pytest.raises(DataError, match=r"arrow is damaged.*: run the attack stage again$"):
            read(path)
    for file in (path, outcomes_file(path)):
        seal(file)
    for read in (read_outcomes, attack_settings, lambda path: list(read_adversarial(path))):
        with pytest.raises(
            DataError, match=r"arrow was made by another version of mdprop: run the attack stage"
        ):
            read(path)


def test_images_and_outcomes_of_two_attacks(tmp_path: Path) -> None:
    for name, size in (("a", 3), ("b", 4)):
        write_adversarial(tmp_path / f"{name}.arrow", batches(size), SETTINGS)
    (tmp_path / "b.arrow").replace(tmp_path / "a.arrow")
    with pytest.raises(
        DataError, match=r"a\.arrow and .*a\.outcomes\.arrow are of two attacks: run the attack"
    ):
        read_outcomes(tmp_path / "a.arrow")
