"""Files that a stage makes batch by batch, of which an interrupted one is taken up where it was."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mdprop.parallel.exchange import from_main, rank, world_size, write_in_order
from mdprop.runtime.state import State

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T", bound=tuple[Any, ...])

SECONDS_BETWEEN_PIECES = 30.0
LARGEST_PIECE = 2**28
"""Bytes that are held in memory to be kept. What is made faster than that is made again as fast."""


class Parts:
    """What a stage has done: whole files, and of those that it was at the batches, in `state`.

    A file that is whole is kept by another name on the same disk: nothing is copied.
    """

    def __init__(self, state: State) -> None:
        self.state = state

    def left(self, files: Mapping[str, Sequence[Path]]) -> list[str]:
        """Which tasks are to be done, of all by name with their files; files of the others are put back."""
        if rank():
            return from_main([])
        return from_main([name for name, own in files.items() if not self.state.put_back(own)])

    def write(
        self,
        files: Sequence[Path],
        write: Callable[[Iterable[T]], object],
        make: Callable[[slice], Iterable[T]],
        rebuild: Callable[[Sequence[Tensor]], T],
    ) -> None:
        """Have `write` write one task's files from what `make` gives, as `write_in_order` does.

        make: the results of some turns: tuples of tensors or arrays. rebuild: one of them from tensors.
        """
        name = hashlib.sha256(os.fsencode(files[0])).hexdigest()[:32]
        write_in_order(write, self._results(f"{name}-{rank()}", make, rebuild))
        self._done(name, files)

    def _done(self, name: str, files: Sequence[Path]) -> None:
        if not rank():
            self.state.keep(files)
            for path in self.state.paths(name):
                path.unlink(missing_ok=True)

    def _results(
        self, name: str, make: Callable[[slice], Iterable[T]], rebuild: Callable[[Sequence[Tensor]], T]
    ) -> Iterator[T]:
        """Those of this process's turns: from pieces that were kept, and what is missing between them."""
        done = 0
        for path in self.state.paths(name):
            piece = self.state.load(path)
            if piece is not None and piece.info["first"] >= done:
                yield from self._made(name, make, done, piece.info["first"])
                yield from _unpacked(piece.tensors, piece.info["results"], rebuild)
                done = piece.info["first"] + piece.info["results"]
        yield from self._made(name, make, done, None)

    def _made(
        self, name: str, make: Callable[[slice], Iterable[T]], first: int, stop: int | None
    ) -> Iterator[T]:
        """The results from `first` to before `stop` of this process's turns; now and then some are kept."""
        if first == stop:
            return
        held: list[T] = []
        size, begun = 0, time.monotonic()
        end = None if stop is None else rank() + stop * world_size()
        for number, result in enumerate(make(slice(rank() + first * world_size(), end, world_size())), first):
            yield result
            held.append(result)
            size += sum(value.nbytes for value in result)
            if time.monotonic() - begun >= SECONDS_BETWEEN_PIECES:
                start = number + 1 - len(held)
                self.state.save(f"{name}-{start:08}", _packed(held), {"first": start, "results": len(held)})
                held, size, begun = [], 0, time.monotonic()
            elif size > LARGEST_PIECE:
                held, size = [], 0


def _packed(results: Sequence[tuple[Any, ...]]) -> dict[str, Tensor]:
    import torch

    return {
        f"{number}.{place}": torch.as_tensor(value)
        for number, result in enumerate(results)
        for place, value in enumerate(result)
    }


def _unpacked(
    tensors: Mapping[str, Tensor], count: int, rebuild: Callable[[Sequence[Tensor]], T]
) -> Iterator[T]:
    width = len(tensors) // count
    for number in range(count):
        yield rebuild([tensors[f"{number}.{place}"] for place in range(width)])
