from __future__ import annotations

import pytest
import torch

from mdprop.errors import ParameterError
from mdprop.methods import METHODS, Method
from mdprop.parallel import rows
from mdprop.parallel.rows import batch_rows, clean_rows
from tests.helpers import make_method

TWO_RADII = make_method(
    "two_radii",
    {"goal": "single_target", "share": "1/4", "branch": "near"},
    {"goal": "single_target", "share": "1/2", "branch": "far"},
)
CROSSED = make_method(
    "crossed",
    {"goal": "single_target", "share": "1/3", "branch": "a", "through": "clean"},
    {"goal": "single_target", "share": "1/6", "branch": "b"},
    {"goal": "single_target", "share": "1/2", "branch": "c", "through": "a"},
)
ALL = [*METHODS.values(), TWO_RADII]


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Processes:
    return Processes(monkeypatch)


class Processes:
    """Be process `rank` of `count`, as far as the rows know."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch

    def be(self, rank: int, count: int) -> None:
        self.monkeypatch.setattr(rows, "rank", lambda: rank)
        self.monkeypatch.setattr(rows, "world_size", lambda: count)


def test_a_process_has_its_part_of_every_slice(processes: Processes) -> None:
    processes.be(0, 2)
    assert clean_rows(METHODS["mdprop"], 64) == [*range(16), *range(32, 48)]
    processes.be(1, 2)
    assert clean_rows(METHODS["mdprop"], 64) == [*range(16, 32), *range(48, 64)]
    processes.be(2, 4)
    assert clean_rows(METHODS["standard"], 8) == [4, 5]
    assert clean_rows(METHODS["mdprop_unadv"], 12) == [2, 6, 10]


@pytest.mark.parametrize("method", ALL, ids=lambda method: method.name)
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_rows_of_a_process_are_a_smaller_batch_of_the_same_method(
    processes: Processes, method: Method, count: int
) -> None:
    size = 12 * count
    images = torch.arange(size)
    whole = torch.cat([images, *(images[members] for members in method.members(size))])
    seen = []
    for rank in range(count):
        processes.be(rank, count)
        clean = images[clean_rows(method, size)]
        expected = torch.cat([clean, *(clean[members] for members in method.members(len(clean)))])
        found = batch_rows(method, 12)
        assert torch.equal(clean[found.sources], expected[12:])
        assert (found.batch.count, found.attacked.count) == (len(whole), len(whole) - size)
        assert torch.equal(found.batch.of(whole), expected)
        assert torch.equal(found.attacked.of(whole[size:]), expected[12:])
        for part, members in zip(found.parts, method.members(size), strict=True):
            assert torch.equal(whole[size:][part.whole], images[members])
            assert set(expected[12:][part.own].tolist()) <= set(members)
        seen.append(found.batch.of(torch.arange(len(whole))))
    assert torch.cat(seen).sort().values.tolist() == list(range(len(whole)))
    if count > 1:
        assert found.batch.order is not None
        assert torch.equal(torch.cat(seen)[found.batch.order], torch.arange(len(whole)))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_slices_made_through_other_branches_are_attacked_in_an_order_of_their_own(
    processes: Processes, count: int
) -> None:
    size = 12 * count
    images = torch.arange(size)
    whole = torch.cat([images, *(images[members] for members in CROSSED.members(size))])
    for rank in range(count):
        processes.be(rank, count)
        clean = images[clean_rows(CROSSED, size)]
        found = batch_rows(CROSSED, 12)
        assert found.routes == {"clean": 12, "a": 4, "b": 2, "c": 6}
        assert list(found.attacked_routes.items()) == [("clean", 4), ("a", 6), ("b", 2)]
        assert [part.settings.name for part in found.parts] == ["a", "c", "b"]
        attacked = torch.cat([whole[part.learned] for part in found.parts])
        own = found.attacked.of(attacked)
        assert torch.equal(clean[found.sources], own)
        assert torch.equal(torch.cat([clean, found.in_batch_order(own)]), found.batch.of(whole))
        for part in found.parts:
            assert torch.equal(attacked[part.whole], images[part.clean])
            assert torch.equal(attacked[part.whole][part.places], own[part.own])
            assert found.in_batch_order(own).tolist() != own.tolist()


def test_a_process_that_is_alone_has_all(processes: Processes) -> None:
    numbers = torch.arange(24)
    share = batch_rows(METHODS["mdprop"], 12).batch
    assert share.of(numbers) is numbers
    assert share.together(numbers) is numbers
    assert clean_rows(METHODS["mdprop_unadv"], 64) == list(range(64))


@pytest.mark.parametrize("method", ALL, ids=lambda method: method.name)
@pytest.mark.parametrize("size", [1, 7, 64])
def test_every_row_has_a_branch(method: Method, size: int) -> None:
    found = batch_rows(method, size)
    assert tuple(found.routes) == method.branches
    assert sum(found.routes.values()) == size + len(found.sources) == sum(method.sizes(size))
    assert sum(found.attacked_routes.values()) == len(found.sources)
    assert all(part.own.stop > part.own.start for part in found.parts)


def test_slices_that_share_a_branch_are_one_route() -> None:
    assert batch_rows(METHODS["at"], 64).routes == {"clean": 128}
    assert batch_rows(METHODS["at"], 64).attacked_routes == {"clean": 64}


def test_two_slices_of_one_goal_have_a_route_each() -> None:
    found = batch_rows(TWO_RADII, 64)
    assert found.routes == {"clean": 64, "near": 16, "far": 32}
    assert [part.settings.name for part in found.parts] == ["near", "far"]
    assert found.sources.tolist() == list(range(48))


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
