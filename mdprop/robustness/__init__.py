"""The fixed adversary: adversarial test sets, and how a model fares under them."""

from mdprop.robustness.evaluation import evaluate_sets
from mdprop.robustness.generation import Threat, generate_set, sample_rows

__all__ = ["Threat", "evaluate_sets", "generate_set", "sample_rows"]
