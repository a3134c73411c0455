"""What two processes tell each other, against one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from mdprop.parallel.exchange import (
    from_main,
    gather_rows,
    in_order,
    rank,
    send,
    share_gradients,
    turns,
    widest,
    world_size,
    write_in_order,
)
from tests.parallel.together import Cases, Results, all_rows, assert_all_close, numbered, own_rows

CASES = Cases()


@CASES.case("who")
def who(folder: Path) -> Any:
    return world_size(), rank(), list(range(5))[turns()], from_main(rank() + 10)


def test_processes_know_who_they_are(both: list[Results], alone: Results) -> None:
    assert [results["who"] for results in both] == [(2, 0, [0, 2, 4], 10), (2, 1, [1, 3], 10)]
    assert alone["who"] == (1, 0, [0, 1, 2, 3, 4], 10)


@CASES.case("in order")
def ordered(folder: Path) -> Any:
    found = []
    for count in range(6):
        own = [f"task {i}" for i in range(count)][turns()]
        if rank():
            send(own)
        else:
            found.append(list(in_order(own)))
    return found


def test_results_come_in_the_order_of_their_tasks(both: list[Results], alone: Results) -> None:
    expected = [[f"task {i}" for i in range(count)] for count in range(6)]
    assert both[0]["in order"] == alone["in order"] == expected
    assert both[1]["in order"] == []


@CASES.case("written")
def written(folder: Path) -> Any:
    calls = []

    def write(results: Iterable[int]) -> None:
        calls.append(list(results))

    write_in_order(write, (number**2 for number in range(5)[turns()]))
    return calls


def test_one_process_writes_what_all_have_done(both: list[Results], alone: Results) -> None:
    assert both[0]["written"] == alone["written"] == [[0, 1, 4, 9, 16]]
    assert both[1]["written"] == []


@CASES.case("gather")
def gathered(folder: Path) -> Any:
    own = own_rows(numbered(4, 3, 2)).requires_grad_()
    whole = gather_rows(own) if world_size() > 1 else own
    (whole.square() * numbered(4, 3, 2)).sum().backward()
    assert own.grad is not None
    return whole.detach(), all_rows(own.grad)


def test_gathered_rows_have_the_gradient_of_the_whole(both: list[Results], alone: Results) -> None:
    assert_all_close(both, alone, "gather", rtol=0, atol=0)


@CASES.case("widest")
def widest_ranges(folder: Path) -> Any:
    # rank 0: [0, 3], [-9, 1]; rank 1: [-1, 2], [4, 5]
    ranges = torch.tensor([[[0.0, 3.0], [-9.0, 1.0]], [[-1.0, 2.0], [4.0, 5.0]]])
    return widest(ranges[rank()])


def test_the_widest_range(both: list[Results], alone: Results) -> None:
    assert [results["widest"].tolist() for results in both] == [[[-1, 3], [-9, 5]]] * 2
    assert alone["widest"].tolist() == [[0, 3], [-9, 1]]


@CASES.case("gradients")
def gradients(folder: Path) -> Any:
    own = [torch.zeros(2, 3), torch.zeros(2), torch.zeros(4, dtype=torch.float64)]
    common = [torch.zeros(1), torch.zeros(1)]
    for parameter in own[:1] + own[2:]:
        parameter.grad = torch.full_like(parameter, 1.0 + rank())
    common[1].grad = torch.full((1,), 4.0 + rank())
    share_gradients(own, common)
    return [p.grad for p in own + common]


def test_own_gradients_are_added_and_common_ones_averaged(both: list[Results], alone: Results) -> None:
    for results, (added, averaged) in zip([*both, alone], [(3, 4.5), (3, 4.5), (1, 4)], strict=True):
        first, unused, wide, idle, mean = results["gradients"]
        assert unused is None and idle is None
        assert torch.equal(first, torch.full((2, 3), float(added)))
        assert torch.equal(wide, torch.full((4,), float(added), dtype=torch.float64))
        assert mean.item() == averaged
