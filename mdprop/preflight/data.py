"""Whether the prepared images offer what the parameters ask for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mdprop.config.attacks import AdversarySettings
from mdprop.config.schema import TrainSettings
from mdprop.data.loading.samplers import ClassBalancedSampler
from mdprop.errors import ParameterError
from mdprop.preflight.finding import Finding
from mdprop.robustness.sampling import drawn_rows, is_measurable, with_partner

Labels = NDArray[np.int64]


def check_batches(labels: Labels, settings: TrainSettings) -> Iterator[Finding]:
    """Whether classes with these training labels [N] fill the batches.

    A class of fewer images than `images_per_class` repeats some. That a few do is said; that most do
    is a mistake, but where classes and images are drawn with replacement anyway.
    """
    each = settings.images_per_class
    try:
        ClassBalancedSampler(labels, settings.batch_size, each, 0, settings.class_replacement)
    except ParameterError as error:
        yield Finding(str(error))
    counts = np.sort(np.unique(labels, return_counts=True)[1])
    few = int((counts < each).sum())
    if few and not settings.class_replacement:
        text = f"train.images_per_class = {each}: {few} of {len(counts)} training classes have fewer images"
        most = max(2, int(counts[len(counts) // 2]))
        if each > most:
            yield Finding(f"{text}; from 2 to {most} is needed, or class_replacement: true")
        else:
            yield Finding(f"{text}, and repeat some in a batch", stops=False)


def check_adversary(labels: Labels, settings: AdversarySettings) -> Iterator[Finding]:
    """Whether test images with these labels [N] offer the targets and the partners that are asked for."""
    others = len(labels) - int(np.unique(labels, return_counts=True)[1].max())
    for name, threat in settings.sets.items():
        if threat.wants.many and threat.targets > others:
            yield Finding(
                f"adversary.sets.{name}.targets = {threat.targets}: the test data offer {others} images of "
                f"other classes; from 1 to {others} is needed"
            )
    drawn = labels[drawn_rows(labels, settings.queries, settings.seed, settings.draw)]
    alone = int((~with_partner(drawn)).sum())
    if not is_measurable(drawn):
        text = f"adversary.queries = {settings.queries}: fewer than two classes have two images among them"
        if settings.draw == "classes":
            yield Finding(f"{text}, as adversary.draw = classes asks for; raise queries, or set draw: images")
        else:
            yield Finding(
                f"{text}, so nothing is measured among attacked images; adversary.draw=classes draws whole "
                "classes",
                stops=False,
            )
    elif alone:
        yield Finding(
            f"adversary.queries = {settings.queries}: {alone} of {len(drawn)} are alone in their class, and "
            "left out of what is measured among attacked images",
            stops=False,
        )
