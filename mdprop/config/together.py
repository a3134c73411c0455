"""What the sections of params.yaml must be to each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from pydantic import ValidationError

from mdprop.branches import ALL, CLEAN, parse_branch
from mdprop.errors import ParameterError
from mdprop.methods import METHODS, Method, Slice
from mdprop.runs import has_branch, meets
from mdprop.settings import Refused

if TYPE_CHECKING:
    from mdprop.config.schema import Params

SMALLEST_FOR_CONV4 = 16


def refusals(params: Params) -> Iterator[Refused]:
    """What does not go together, by the dotted key to mend."""
    yield from _data(params)
    yield from _recipes(params)
    possible = []
    for family, names in params.methods:
        for name in names:
            if _contradicts(name, params.recipes.get(name)):
                continue  # refused above
            try:
                method = params.method(name)
            except ParameterError as error:
                yield Refused(f"methods.{family}", str(error))
                continue
            if method.family != family:
                yield Refused(f"methods.{family}", f"'{name}' belongs under methods.{method.family}")
                continue
            possible.append(method)
            yield from _slices(params, method)
    yield from _batchnorms(params, possible)
    if len(possible) == len(params.methods.all):
        yield from _branches(params, possible)
        yield from _attacks(params, {method.name: method for method in possible})


def _data(params: Params) -> Iterator[Refused]:
    name = params.dataset.name
    if name not in params.datasets:
        yield Refused("dataset.name", f"is no block of datasets: {', '.join(params.datasets)}")
    elif params.model.backbone == "conv4" and params.active_dataset.image_size < SMALLEST_FOR_CONV4:
        yield Refused(
            f"datasets.{name}.image_size",
            f"conv4 halves it four times: {SMALLEST_FOR_CONV4} or more is needed, or another model.backbone",
        )


def _recipes(params: Params) -> Iterator[Refused]:
    for name, slices in params.recipes.items():
        if _contradicts(name, slices):
            yield Refused(f"recipes.{name}", "a known method keeps its slices; give yours another name")


def _contradicts(name: str, slices: Sequence[Slice] | None) -> bool:
    """Whether a recipe gives a known method other slices; one written before it was known may stay."""
    return slices is not None and name in METHODS and tuple(slices) != METHODS[name].adversarial


def _slices(params: Params, method: Method) -> Iterator[Refused]:
    """Whether the slices of a method find what they need in a batch."""
    each = params.train.images_per_class
    sizes = method.sizes(params.train.batch_size)
    if min(sizes) <= each:
        yield Refused(
            "train.batch_size",
            f"too small for {method.name}: a slice of {min(sizes)} images may hold one class only "
            f"(images_per_class is {each}); raise batch_size",
        )
        return
    for part, size in zip(method.adversarial, sizes[1:], strict=True):
        try:
            threat = params.attack.threat(part)
        except ValidationError as error:
            for refused in error.errors()[0]["ctx"]["error"].problems:
                own = getattr(part, refused.key, None) is not None
                key = f"recipes.{method.name}" if own else f"attack.{refused.key}"
                yield Refused(key, f"slice '{part.name}' of {method.name}: {refused}")
            continue
        there = size if params.attack.rule("target_kind") == "any" else size - each
        if threat.wants.many and threat.targets > there:
            yield Refused(
                "attack.targets" if part.targets is None else f"recipes.{method.name}",
                f"{method.name} draws the targets of an image from its slice '{part.name}', where {size} "
                f"images offer {there}: from 1 to {there} is needed, or a larger train.batch_size",
            )


def _batchnorms(params: Params, methods: list[Method]) -> Iterator[Refused]:
    """Whether statistics that are kept are there, and whether any move where a momentum is set."""
    freeze = params.model.freeze_batchnorm
    if freeze not in ("statistics", "all"):
        return
    if params.model.auxiliary_momentum is not None:
        yield Refused(
            "model.auxiliary_momentum",
            f"with model.freeze_batchnorm: {freeze} no statistics move; null is needed, or to freeze less",
        )
    auxiliary = any(branch != CLEAN for method in methods for branch in method.branches)
    if auxiliary and params.attack.rule("batchnorm_start") == "reset":
        yield Refused(
            "model.freeze_batchnorm",
            "keeps the statistics that branches start with, and the auxiliary ones would start without any; "
            "set attack.batchnorm_start to copy (with null, attack.compatibility: authors resets them)",
        )


def _branches(params: Params, methods: list[Method]) -> Iterator[Refused]:
    known = {branch for method in methods for branch in method.branches}
    for text in params.adversary.branches:
        unknown = [part for part in parse_branch(text).names if part not in known]
        if unknown:
            yield Refused(
                "adversary.branches",
                f"no method has a branch '{unknown[0]}'; there are: {', '.join(sorted(known))}",
            )


def _attacks(params: Params, methods: Mapping[str, Method]) -> Iterator[Refused]:
    """Whether what is attacked is there, and whether each method meets an attack that needs no other run."""
    runs = {f"{name}/{seed}": set(m.branches) for name, m in methods.items() for seed in params.seeds}
    everywhere = set().union(*runs.values())
    for name, threat in params.adversary.sets.items():
        if threat.source is not None and threat.source not in runs:
            yield Refused(
                f"adversary.sets.{name}.source",
                f"none of the runs of methods and seeds: {', '.join(runs)}; name one, or leave the set out",
            )
            continue
        there = everywhere if threat.source is None else runs[threat.source]
        branch = threat.branch or CLEAN
        if not has_branch(there, branch) and (branch != ALL or threat.source is not None):
            yield Refused(f"adversary.sets.{name}.branch", f"there are: {', '.join(sorted(there))}")
    own = [threat for threat in params.adversary.sets.values() if threat.source is None]
    for run, branches in runs.items():
        if not any(meets(run, branches, threat) for threat in own):
            yield Refused(
                "adversary.sets", f"none is an attack on {run} itself; add one without branch and source"
            )
