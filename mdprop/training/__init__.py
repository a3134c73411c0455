"""Training: the step and the loop around it."""

from mdprop.parallel.rows import clean_rows
from mdprop.training.loop import train
from mdprop.training.records import recorded
from mdprop.training.step import TrainingAttack, attack_batch, training_step
from mdprop.training.validation import recall_at_1

__all__ = [
    "TrainingAttack",
    "attack_batch",
    "clean_rows",
    "recall_at_1",
    "recorded",
    "train",
    "training_step",
]
