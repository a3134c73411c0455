"""Which images an attack looks at."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

TargetKind = Literal["other_class", "any", "same_class"]


def choose_targets(
    embeddings: Tensor,
    labels: Tensor,
    count: int,
    kind: TargetKind,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Target embeddings for each row of a batch: [B, D] -> [T, B, D], detached.

    kind: see `target_rows`.
    """
    rows = target_rows(labels.cpu(), torch.arange(len(labels)), count, kind, generator)
    return embeddings.detach()[rows.to(embeddings.device)]


def target_rows(
    labels: Tensor,
    queries: Tensor,
    count: int,
    kind: TargetKind,
    generator: torch.Generator | None = None,
) -> Tensor:
    """For each query, `count` rows to aim at: labels [N], queries [Q] (rows) -> [T, Q].

    kind:
      "other_class"  rows of other classes, different ones where there are `count` of them;
      "same_class"   other rows of the query's class (the unadversarial goal); a row that is alone
                     in its class aims at itself;
      "any"          the authors' rule, `count` random permutations of all rows, where a target may
                     be the image itself or one of its class; needs queries = all rows.

    Raises `ValueError` when all rows are of one class and another is asked for.
    """
    if count < 1:
        raise ValueError(f"count must be 1 or more, not {count}")
    if kind == "any":
        if len(queries) != len(labels):
            raise ValueError("kind 'any' permutes all rows: queries must be all of them")
        perms = [torch.randperm(len(labels), generator=generator) for _ in range(count)]
        return torch.stack(perms)[:, queries]
    # Rows sorted by class: a class is a block, other classes are what lies around it.
    order = torch.argsort(labels, stable=True)
    position = torch.empty_like(order)
    position[order] = torch.arange(len(order))
    counts = torch.unique_consecutive(labels[order], return_counts=True)[1]
    ends = torch.repeat_interleave(counts.cumsum(0), counts)[position[queries]]
    size = torch.repeat_interleave(counts, counts)[position[queries]]
    if kind == "other_class":
        gap_start, gap, total = ends - size, size, len(labels) - size
        offset = torch.zeros_like(size)
        if (total == 0).any():
            raise ValueError("all rows are of one class: there is no other class to aim at")
    elif kind == "same_class":
        alone = size == 1
        gap = (~alone).long()
        total = size - gap
        offset = ends - size
        gap_start = position[queries] - offset
    else:
        raise ValueError(f"unknown target kind '{kind}'; known: other_class, same_class, any")
    drawn = _draw_distinct(total, count, generator)
    drawn = drawn + gap * (drawn >= gap_start) + offset
    return order[drawn]


def _draw_distinct(total: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Uniform integers below `total` [Q] -> [count, Q], different in a column where they can be.

    Floyd's sampling: draw i is below total - count + i + 1, or just that where its value is taken.
    """
    uniform = torch.rand(count, len(total), generator=generator, dtype=torch.float64)
    drawn = torch.empty(count, len(total), dtype=torch.long)
    enough = total >= count
    for i in range(count):
        top = torch.where(enough, total - count + i, total - 1)
        row = (uniform[i] * (top + 1)).long().minimum(top)
        taken = (drawn[:i] == row).any(0) & enough
        drawn[i] = torch.where(taken, top, row)
    return drawn
