"""The folder of one trained model, runs/<method>/<seed>: where its files are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mdprop.branches import ALL, CLEAN, parse_branch
from mdprop.errors import ResultError
from mdprop.files import read_sealed_json

if TYPE_CHECKING:
    from mdprop.attacks.threat import Threat

GALLERY = "gallery"
"""The clean images that queries search, in data sets that keep the two apart."""

ALONE = "alone"
"""Some of the clean images, embedded one at a time."""

WORST_CASE = "worst_case"
"""The input set of queries that count only where they are right under every attack."""

SCORE = "robustness_score"
"""The input set of RobRank's score and its parts."""

CORRUPTED = "corruptions"
"""The input set of the mean over all corruptions."""

CHECKS = "checks"
"""The input set of how often each check against false robustness found something."""


@dataclass(frozen=True)
class Run:
    """What the stages write for one method and seed.

    Files of the clean branch lie in adversarial/ and embeddings/ themselves, those of another branch
    (or of all, attacked at once) in a folder of its name below.
    """

    method: str
    seed: int
    root: Path = Path("runs")

    @classmethod
    def named(cls, name: str) -> Run:
        """That of `method/seed`."""
        method, seed = name.rsplit("/", 1)
        return cls(method, int(seed))

    def __str__(self) -> str:
        return f"{self.method}/{self.seed}"

    def among(self, runs: Sequence[Run]) -> str:
        """`mdprop/0, run 4 of 4`; its name alone where it is none of them."""
        return f"{self}, run {runs.index(self) + 1} of {len(runs)}" if self in runs else str(self)

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

    @property
    def examples(self) -> Path:
        """Of a few queries with their pictures."""
        return self.folder / "examples.json"

    def adversarial(self, branch: str, input_set: str) -> Path:
        """The images of a set that was made by an attack on `branch` of this run."""
        return self._below("adversarial", branch) / f"{input_set}.arrow"

    def surrogate(self, input_set: str) -> Path:
        """The images of a set that was made by an attack on this run, for others to answer."""
        return Path("surrogates") / str(self) / f"{input_set}.arrow"

    def attacked(self, answering: str, input_set: str, threat: Threat) -> Path:
        """Where the images of a set are that this run answers through a branch."""
        if threat.source is not None:
            return Run.named(threat.source).surrogate(input_set)
        return self.adversarial(threat.branch or answering, input_set)

    def embeddings(self, branch: str, input_set: str) -> Path:
        """Those of a set, by the answering branch."""
        return self._below("embeddings", branch) / f"{input_set}.parquet"

    def _below(self, kind: str, branch: str) -> Path:
        return self.folder / kind if branch == CLEAN else self.folder / kind / branch

    def answering(self, wanted: Sequence[str]) -> list[str]:
        """Of the wanted branches and mixtures those that the model has, or else its clean branch.

        Raises `ResultError` where the model's description is missing or malformed.
        """
        there = self.branches()
        return [text for text in wanted if there.issuperset(parse_branch(text).names)] or [CLEAN]

    def met(self, threats: Mapping[str, Threat]) -> dict[str, Threat]:
        """Of the threats those that this run meets: see `meets`. Raises as `answering`."""
        branches = self.branches()
        return {name: threat for name, threat in threats.items() if meets(str(self), branches, threat)}

    def branches(self) -> set[str]:
        """Those of the model. Raises as `answering`."""
        description = read_sealed_json(self.folder / "model.json", "run dvc repro")
        build = description.get("build")
        branches = build.get("branches") if isinstance(build, dict) else None
        if not isinstance(branches, list) or not all(isinstance(branch, str) for branch in branches):
            raise ResultError(f"{self.folder / 'model.json'} names no branches of a model: run dvc repro")
        return set(branches)


def runs_of(methods: Iterable[str], seeds: Sequence[int]) -> list[Run]:
    """Those of each method with each seed, the seeds of a method side by side."""
    return [Run(method, seed) for method in methods for seed in seeds]


def meets(run: str, branches: Collection[str], threat: Threat) -> bool:
    """Whether a run (`standard/0`) with these branches meets a threat.

    It does not where the threat is a transfer from itself, where the branch that is attacked is not
    one of its own, and where all branches would be attacked and there is one only.
    """
    if threat.source is not None:
        return threat.source != run
    return threat.branch is None or has_branch(branches, threat.branch)


def has_branch(branches: Collection[str], branch: str) -> bool:
    """Whether a network with these branches has `branch`: one, a mixture of two, or all of several."""
    return len(branches) > 1 if branch == ALL else set(branches).issuperset(parse_branch(branch).names)
