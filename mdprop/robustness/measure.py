"""Any network that embeds images, against the suite of attacks: as the pipeline measures its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torchvision.transforms import v2

from mdprop.attacks.threat import Threat
from mdprop.branches import CLEAN
from mdprop.config.attacks import AdversarySettings
from mdprop.config.schema import EvaluateSettings
from mdprop.data.loading.datasets import BATCH_SIZE, load_images
from mdprop.data.stores.images import StoredImages
from mdprop.errors import ResultError
from mdprop.files import write_files
from mdprop.robustness.embedding import corrupted_batches, extract_embeddings, input_batches, set_sizes
from mdprop.robustness.foreign import probe
from mdprop.robustness.networks import Network, RunAt
from mdprop.robustness.results import write_results
from mdprop.robustness.sets import attacks_on_itself, make_sets
from mdprop.runs import meets
from mdprop.runtime.hardware import device
from mdprop.runtime.progress import counting
from mdprop.runtime.provenance import provenance

RECORD = "measured.json"
"""What was measured, and how: also the sign that a folder is a measurement."""


@dataclass(frozen=True)
class Measured(RunAt):
    """The results of `measure`: the files of a run, in a folder of any name.

    has: the branches of the network.
    """

    has: frozenset[str] = frozenset({CLEAN})

    def branches(self) -> set[str]:
        return set(self.has)


def measure(
    network: Network,
    out: Path,
    stores: Mapping[str, StoredImages],
    transform: v2.Transform,
    adversary: AdversarySettings,
    evaluate: EvaluateSettings,
    corruptions: Mapping[str, tuple[str, int]] | None = None,
) -> Measured:
    """Attack a network, embed and evaluate, as the stages attack, embed and evaluate do for a run.

    out: the folder to write: measured.json, metrics.json, queries.parquet, checks.json, adversarial/ and
        embeddings/. An earlier measurement there is replaced.
    stores, transform: the clean images by input set, `clean` and where there is one `gallery`, and how
        the network meets them.
    adversary: the attacks, without those that `left_out` names. Its `branches` are not looked at.
    corruptions: kind and severity by input set, as `CorruptionSettings.sets` has them.

    Raises `ModelError` for a network that cannot be measured, before any attack; `ResultError` where
    `out` holds anything else, no attack is left, or the results cannot be measured.
    """
    run = Measured(out.absolute().name, 0, place=out, has=network.branches)
    _claim(out)
    threats = own_attacks(network, adversary.sets)
    if not threats:
        raise ResultError("adversary.sets: none is an attack on the network that is measured; add one")
    model, clean = network.load(network.answers), stores[CLEAN]
    some = load_images(clean, range(min(BATCH_SIZE, len(clean))), transform).to(device())
    follow = any(threat.optimizer in ("pgd", "apgd") for threat in threats.values())
    probe(model, network.name, some, gradients=follow)
    _begin(run, network, clean, adversary, evaluate, list(corruptions or {}))
    plan = attacks_on_itself(run, [network.answers], threats)
    make_sets(run, plan, network.load, clean, transform, adversary)
    corrupted = corruptions or {}
    sets = input_batches(run, network.answers, stores, transform, threats) | corrupted_batches(
        run, network.answers, clean, transform, threats, corrupted, adversary.seed
    )
    sizes = set_sizes(run, network.answers, stores, threats, corrupted)
    with counting(f"embed {run}", sum(sizes.values()), "images") as count:
        for number, (name, batches) in enumerate(sets.items(), 1):
            count.at(f"set {number} of {len(sets)}, {name}")
            extract_embeddings(model, batches, run.embeddings(network.answers, name), device(), count)
    write_results(run, [network.answers], threats, evaluate, corrupted)
    return run


def own_attacks(network: Network, threats: Mapping[str, Threat]) -> dict[str, Threat]:
    """The attacks on the network itself, through branches that it has."""
    return {n: t for n, t in threats.items() if t.source is None and meets("", network.branches, t)}


def left_out(network: Network, threats: Mapping[str, Threat]) -> list[str]:
    """The sets that attack another run, or a branch that the network does not have."""
    own = own_attacks(network, threats)
    return [name for name in threats if name not in own]


def _claim(out: Path) -> None:
    """Raises `ResultError` for a folder that may hold what is of value to someone."""
    if out.exists() and not out.is_dir():
        raise ResultError(f"{out} is a file: give a folder for the results")
    if out.is_dir() and any(out.iterdir()) and not (out / RECORD).is_file():
        raise ResultError(f"{out} is no earlier measurement, and is not empty: give another folder")


def _begin(
    run: Measured,
    network: Network,
    images: StoredImages,
    adversary: AdversarySettings,
    evaluate: EvaluateSettings,
    corruptions: Sequence[str],
) -> None:
    """Leave nothing of an earlier measurement, and say what this one is."""
    for file in (run.metrics, run.queries, run.checks):
        file.unlink(missing_ok=True)
    for folder in ("adversarial", "embeddings"):
        shutil.rmtree(run.folder / folder, ignore_errors=True)
    record = {
        "network": network.name,
        "branch": network.answers,
        "images": str(images.file),
        "adversary": adversary.model_dump(mode="json"),
        "corruptions": corruptions,
        "evaluate": evaluate.model_dump(mode="json"),
        "provenance": provenance(),
    }
    write_files({run.folder / RECORD: json.dumps(record, indent=2) + "\n"})
