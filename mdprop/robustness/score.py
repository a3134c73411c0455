"""RobRank's Empirical Robustness Score, and the flag that it must not be read without."""

from __future__ import annotations

from collections.abc import Mapping

from mdprop.arrays import Array
from mdprop.attacks.threat import Threat
from mdprop.branches import CLEAN
from mdprop.metrics.geometry import COLLAPSED, spread

RANGES = {
    "ca_plus": (0, 100),
    "ca_minus": (0, 100),
    "qa_plus": (0, 100),
    "qa_minus": (0, 100),
    "tma": (-1, 1),
    "esd": (0, 2),
    "es_recall": (0, 100),
    "ltm": (0, 100),
    "gtm": (0, 100),
    "gtt": (0, 100),
}
"""The parts of the score, and between which values they lie."""

# Of each goal the metric that is a part, and what brings it to the part's unit.
_MEASURED = {
    "ca_plus": ("ca_plus", "rank_percent", 1),
    "ca_minus": ("ca_minus", "rank_percent", 1),
    "qa_plus": ("qa_plus", "rank_percent", 1),
    "qa_minus": ("qa_minus", "rank_percent", 1),
    "tma": ("tma", "target_cosine", 1),
    "esd": ("es", "shift", 1),
    "es_recall": ("es", "recall_at_1", 100),
    "ltm": ("ltm", "recall_at_1", 100),
    "gtm": ("gtm", "recall_at_1", 100),
    "gtt": ("gtt", "kept", 100),
}

ROUNDING = 1e-4  # a float32 cosine or distance may go beyond its range by as much


def empirical_robustness_score(parts: Mapping[str, float]) -> float:
    """The mean of ten numbers, each about 100 where an attack has no effect (Zhou et al., arXiv 2106.03614).

    2·CA+, 100 − CA−, 2·QA+, 100 − QA−, 100·(1 − TMA), 100·(2 − ESD)/2, ESR, LTM, GTM, GTT.

    parts, all of them, as means over the attacked images:
    ca_plus, ca_minus, qa_plus, qa_minus: where the candidate ends up in the ranking, in % (0: first).
    tma: cosine to the target. esd: distance from the clean embedding.
    es_recall, ltm, gtm: Recall@1 under attack, in %. gtt: queries that keep their neighbour, in %.

    A network that embeds all images alike can score some 30: see `is_collapsed`. Raises `ValueError` for
    parts that are missing, unknown or out of range.
    """
    missing = [name for name in RANGES if name not in parts]
    unknown = [name for name in parts if name not in RANGES]
    if missing or unknown:
        wrong = [
            f"{what} {', '.join(names)}"
            for what, names in (("missing", missing), ("unknown", unknown))
            if names
        ]
        raise ValueError(f"the parts of the robustness score are {', '.join(RANGES)}; {'; '.join(wrong)}")
    for name, (low, high) in RANGES.items():
        if not low - ROUNDING <= parts[name] <= high + ROUNDING:
            raise ValueError(f"{name} must be from {low} to {high}, not {parts[name]}")
    terms = (
        2 * parts["ca_plus"],
        100 - parts["ca_minus"],
        2 * parts["qa_plus"],
        100 - parts["qa_minus"],
        100 * (1 - parts["tma"]),
        100 * (2 - parts["esd"]) / 2,
        parts["es_recall"],
        parts["ltm"],
        parts["gtm"],
        parts["gtt"],
    )
    return float(sum(terms) / len(terms))


def score_of(metrics: Mapping[str, Mapping[str, float]], threats: Mapping[str, Threat]) -> dict[str, float]:
    """The score of one model beside its ten parts and clean Recall@1; {} where a goal has no set.

    metrics: {input set: {metric: value}}, `clean` among them; of several sets of a goal the first counts.
    """
    sets = {threat.goal: name for name, threat in reversed(list(threats.items()))}
    if any(goal not in sets for goal, _, _ in _MEASURED.values()):
        return {}
    parts = {part: factor * metrics[sets[goal]][key] for part, (goal, key, factor) in _MEASURED.items()}
    score = empirical_robustness_score(parts)
    return {"empirical_robustness_score": score, "recall_at_1": metrics[CLEAN]["recall_at_1"], **parts}


def is_collapsed(embeddings: Array) -> bool:
    """Whether clean embeddings [N, D] are so alike that the robustness score means nothing.

    Attacks cannot move what is all in one place, nor show much where all are next to each other. Errors
    as in `spread`.
    """
    return spread(embeddings) < COLLAPSED
