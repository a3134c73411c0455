from __future__ import annotations

import pytest
import torch

from mdprop.errors import ParameterError
from mdprop.methods import METHODS
from mdprop.parallel.rows import attacked_share, batch_share
from mdprop.training import clean_rows, shares


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    return Processes(monkeypatch)


class Processes:
    """Be process `rank` of `count`, as far as the shares know."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch

    def be(self, rank: int, count: int) -> None:
        self.monkeypatch.setattr(shares, "rank", lambda: rank)
        self.monkeypatch.setattr(shares, "world_size", lambda: count)


def test_a_process_has_its_part_of_every_distribution(processes: Processes) -> None:
    processes.be(0, 2)
    assert clean_rows(METHODS["mdprop"], 64) == [*range(16), *range(32, 48)]
    processes.be(1, 2)
    assert clean_rows(METHODS["mdprop"], 64) == [*range(16, 32), *range(48, 64)]
    processes.be(2, 4)
    assert clean_rows(METHODS["standard"], 8) == [4, 5]
    assert clean_rows(METHODS["mdprop_unadv"], 12) == [2, 6, 10]


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.name)
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_a_share_is_a_smaller_batch_of_the_same_method(
    processes: Processes, method: shares.Method, count: int
) -> None:
    size = 12 * count
    images = torch.arange(size)
    whole = torch.cat([images, *(images[rows] for _, rows in method.rows(size))])
    seen = []
    for rank in range(count):
        processes.be(rank, count)
        clean = images[clean_rows(method, size)]
        expected = torch.cat([clean, *(clean[rows] for _, rows in method.rows(len(clean)))])
        share, attacked = batch_share(method, 12), attacked_share(method, 12)
        assert (share.count, attacked.count) == (len(whole), len(whole) - size)
        assert torch.equal(share.of(whole), expected)
        assert torch.equal(attacked.of(whole[size:]), expected[12:])
        assert torch.equal(attacked.of(whole[None, size:], dim=1), expected[None, 12:])
        seen.append(share.of(torch.arange(len(whole))))
    assert torch.cat(seen).sort().values.tolist() == list(range(len(whole)))
    if count > 1:
        assert share.order is not None
        assert torch.equal(torch.cat(seen)[share.order], torch.arange(len(whole)))


def test_a_process_that_is_alone_has_all(processes: Processes) -> None:
    rows = torch.arange(24)
    share = batch_share(METHODS["mdprop"], 12)
    assert share.of(rows) is rows
    assert share.together(rows) is rows
    assert clean_rows(METHODS["mdprop_unadv"], 64) == list(range(64))


@pytest.mark.parametrize(
    ("method", "size", "count", "sizes", "fits"),
    [
        ("standard", 63, 2, "63 clean", 64),
        ("mdprop", 66, 2, "66 clean, 33 single_target, 33 multi_target", 68),
        ("mdprop_unadv", 64, 2, "64 clean, 21 single_target, 22 multi_target, 21 unadversarial", 66),
        ("mdprop", 4, 8, "4 clean, 2 single_target, 2 multi_target", 16),
    ],
)
def test_parts_that_are_not_equal_are_a_mistake(
    processes: Processes, method: str, size: int, count: int, sizes: str, fits: int
) -> None:
    processes.be(0, count)
    with pytest.raises(
        ParameterError,
        match=rf"^train\.batch_size = {size}: {count} processes cannot have equal parts of method {method}'s "
        rf"{sizes}; use batch_size {fits}, or another number in MDPROP_PROCESSES$",
    ):
        clean_rows(METHODS[method], size)
    assert len(clean_rows(METHODS[method], fits)) == fits // count
