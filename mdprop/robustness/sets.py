"""The adversarial sets of a run: which attack goes through which branch, and where its images are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from torchvision.transforms import v2

from mdprop.attacks.threat import Threat
from mdprop.branches import ALL, CLEAN
from mdprop.config.attacks import AdversarySettings
from mdprop.config.schema import ImageSettings
from mdprop.data.loading.transforms import test_transform
from mdprop.data.stores.adversarial import Attacked, outcomes_file, write_adversarial
from mdprop.data.stores.images import ImageStore, StoredImages
from mdprop.errors import ResultError
from mdprop.models import Embedder, load_model
from mdprop.models.joint import JointEmbedder
from mdprop.parallel.exchange import write_in_order
from mdprop.parallel.parts import Parts
from mdprop.parallel.resume import kept
from mdprop.robustness.generation import Adversary
from mdprop.runs import Run, has_branch
from mdprop.runtime.hardware import device
from mdprop.runtime.progress import Count, counting
from mdprop.runtime.state import computed_from

Plan = dict[str, dict[str, Threat]]
"""Attacks by the branch that is attacked, and by the name of their set."""


def attacks_on_itself(run: Run, answering: Sequence[str], threats: Mapping[str, Threat]) -> Plan:
    """The attacks that a run meets through each branch that answers, without those made by other runs."""
    plan: Plan = {}
    for name, threat in run.met(threats).items():
        if threat.source is None:
            for branch in answering if threat.branch is None else [threat.branch]:
                plan.setdefault(branch, {})[name] = threat
    return plan


def attacks_for_others(run: Run, threats: Mapping[str, Threat]) -> Plan:
    """The attacks whose source a run is. Raises `ResultError` for a branch that it does not have."""
    plan: Plan = {}
    for name, threat in threats.items():
        if threat.source == str(run):
            plan.setdefault(threat.branch or CLEAN, {})[name] = threat
    there = run.branches()
    for branch, own in plan.items():
        if not has_branch(there, branch):
            raise ResultError(
                f"adversary.sets.{next(iter(own))}.branch: its source {run} has no branch '{branch}'; "
                f"there are: {', '.join(sorted(there))}"
            )
    return plan


def make_sets(
    run: Run,
    plan: Plan,
    load: Callable[[str], Embedder | JointEmbedder],
    store: StoredImages,
    transform: v2.Transform,
    settings: AdversarySettings,
    parts: Parts | None = None,
) -> None:
    """Attack a run as planned, and write each set where `Run.attacked` looks for it.

    load: the network that is attacked, by branch; `attacked_model` for one that the pipeline trained.
    store, transform: the clean test images, as the network meets them.
    parts: of what an interrupted process did.
    """
    for branch, threats in plan.items():
        paths = {name: run.attacked(branch, name, threat) for name, threat in threats.items()}
        files = {name: (path, outcomes_file(path)) for name, path in paths.items()}
        left = parts.left(files) if parts else list(threats)
        if not left:
            continue
        model = load(branch)
        adversary = Adversary(
            model, store, transform, threats, settings.queries, settings.seed, settings.draw
        )
        shown = f"attack {run}" if branch == CLEAN else f"attack {run} through {branch}"
        with counting(shown, len(left) * len(adversary.rows), "images") as count:
            for name in left:
                count.at(f"set {list(threats).index(name) + 1} of {len(threats)}, {name}")
                details = {**threats[name].model_dump(), "branch": branch, "seed": settings.seed}
                write = partial(_write, count, paths[name], details)
                if parts:
                    parts.write(files[name], write, partial(adversary.attack, name), Attacked._make)
                else:
                    write_in_order(write, adversary.attack(name))


def _write(count: Count, path: Path, details: Mapping[str, object], batches: Iterable[Attacked]) -> None:
    write_adversarial(path, count.each(batches, lambda batch: len(batch.ids)), details)


def make_kept_sets(
    task: str, run: Run, plan: Plan, prepared: Path, images: ImageSettings, settings: AdversarySettings
) -> None:
    """`make_sets` on a run that the pipeline trained; a process that is interrupted goes on where it was.

    task: what the state of an interrupted one is called. prepared: the folder that `prepare` wrote;
    images: how the network meets what is there.
    """
    store = ImageStore(prepared / "test.arrow")
    transform = test_transform(images.resize, images.image_size)
    key = {
        "parameters": {
            "adversary": settings.model_dump(mode="json"),
            "images": images.model_dump(mode="json"),
        },
        **computed_from(run.folder / "model.json", store.file),
    }
    with kept(f"{task}-{run.method}-{run.seed}", key) as state:
        make_sets(run, plan, partial(attacked_model, run), store, transform, settings, Parts(state))


def attacked_model(run: Run, branch: str) -> Embedder | JointEmbedder:
    """The network that an attack looks at: one branch of a run, a mixture of two, or all together."""
    if branch == ALL:
        return JointEmbedder(load_model(run.folder, device()))
    return load_model(run.folder, device(), branch)
