"""What a run's own numbers say of its attacks: the queries of each set, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mdprop.attacks.goals.ranks import Rank
from mdprop.attacks.threat import Threat
from mdprop.statistics import Interval, difference_of_queries, share_of_queries

Columns = Mapping[str, NDArray[Any]]

_GRADIENT = ("pgd", "apgd")


@dataclass(frozen=True)
class Evidence:
    """What the checks may look at: one run, through one branch.

    parts: of each input set, the columns that `evaluate_run` returns. threats: the attacks, by set.
    spread: of the clean embeddings. gallery_ids, gallery_labels: [G], of the images that queries search.
    components: how many numbers an image has (C·H·W); None where it is not known.
    apart_alone: how far a clean image's embedding is from that of the image in a batch of its own, at most.
    """

    parts: Mapping[str, Columns]
    threats: Mapping[str, Threat]
    spread: float
    gallery_ids: NDArray[np.int64]
    gallery_labels: NDArray[np.int64]
    components: int | None = None
    apart_alone: float = 0.0

    def attacks(self) -> dict[str, Threat]:
        return {name: threat for name, threat in self.threats.items() if name in self.parts}

    def harmful(self) -> dict[str, Threat]:
        """Attacks whose success brings Recall@1 down: a goal over ranks may be reached without."""
        return {
            name: threat
            for name, threat in self.attacks().items()
            if threat.wants.harms and "hit" in self.parts[name] and not isinstance(threat.wants, Rank)
        }

    def white_boxes(self) -> dict[str, Threat]:
        """Harmful attacks that follow the gradients of the network and branch that answer."""
        return {
            name: threat
            for name, threat in self.harmful().items()
            if threat.white_box and threat.optimizer in _GRADIENT
        }

    def recall(self, name: str) -> float:
        return float(self.parts[name]["hit"].mean())

    def difference(self, ours: str, theirs: str) -> Interval:
        """Recall@1 of one set less that of another, over the queries of both."""
        a, b = self.parts[ours], self.parts[theirs]
        _, i, j = np.intersect1d(a["id"], b["id"], return_indices=True)
        return difference_of_queries(a["hit"][i], b["hit"][j], a["label"][i])

    def chance(self, name: str) -> float:
        """Recall@1 of a set's queries if every image of the gallery were as near as any other."""
        ids, labels = self.parts[name]["id"], self.parts[name]["label"]
        ordered, own = np.sort(self.gallery_labels), np.isin(ids, self.gallery_ids)
        mates = np.searchsorted(ordered, labels, "right") - np.searchsorted(ordered, labels) - own
        return float((mates / np.maximum(len(ordered) - own, 1)).mean())

    def above_chance(self, name: str) -> bool:
        """Whether Recall@1 of a set is above chance beyond its interval."""
        hits = share_of_queries(self.parts[name]["hit"], self.parts[name]["label"])
        return hits.low > self.chance(name)


def alike(ours: Threat, theirs: Threat, free: Sequence[str]) -> bool:
    """Whether two attacks differ in no field but those that are `free`."""
    fields = set(Threat.model_fields) - set(free)
    if not ours.wants.many:
        fields.discard("targets")
    return all(getattr(ours, field) == getattr(theirs, field) for field in fields)
