"""The folder of one trained model, runs/<method>/<seed>: where its files are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mdprop.branches import CLEAN, parse_branch
from mdprop.files import read_json

GALLERY = "gallery"
"""The clean images that queries search, in data sets that keep the two apart."""

WORST_CASE = "worst_case"
"""The input set of queries that count only where they are right under every attack."""

SCORE = "robustness_score"
"""The input set of RobRank's score and its parts."""

CHECKS = "checks"
"""The input set of how often each check against false robustness found something."""


@dataclass(frozen=True)
class Run:
    """What the stages write for one method and seed.

    Files of the clean branch lie in adversarial/ and embeddings/ themselves, those of another branch
    in a folder of its name below.
    """

    method: str
    seed: int
    root: Path = Path("runs")

    @property
    def folder(self) -> Path:
        """Of the model: model.safetensors and model.json."""
        return self.root / self.method / str(self.seed)

    @property
    def live(self) -> Path:
        """Of the training curves."""
        return Path("live") / self.method / str(self.seed)

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.json"

    @property
    def queries(self) -> Path:
        return self.folder / "queries.parquet"

    @property
    def checks(self) -> Path:
        return self.folder / "checks.json"

    def adversarial(self, branch: str, input_set: str) -> Path:
        return self._below("adversarial", branch) / f"{input_set}.arrow"

    def embeddings(self, branch: str, input_set: str) -> Path:
        return self._below("embeddings", branch) / f"{input_set}.parquet"

    def _below(self, kind: str, branch: str) -> Path:
        return self.folder / kind if branch == CLEAN else self.folder / kind / branch

    def answering(self, wanted: Sequence[str]) -> list[str]:
        """Of the wanted branches and mixtures those that the model has, or else its clean branch.

        Raises `ResultError` where the model's description is missing or malformed.
        """
        description = read_json(self.folder / "model.json", "run dvc repro")
        there = set(description.get("build", {}).get("branches", [CLEAN]))
        return [text for text in wanted if there.issuperset(parse_branch(text).names)] or [CLEAN]
