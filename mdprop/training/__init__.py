"""Training: the step and the loop around it."""

from mdprop.training.examples import make_examples
from mdprop.training.loop import train
from mdprop.training.records import curve_digests, recorded
from mdprop.training.run import identity, train_run
from mdprop.training.step import training_step
from mdprop.training.validation import validate

__all__ = [
    "curve_digests",
    "identity",
    "make_examples",
    "recorded",
    "train",
    "train_run",
    "training_step",
    "validate",
]
