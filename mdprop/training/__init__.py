"""Training: the step and the loop around it."""

from mdprop.training.examples import make_examples
from mdprop.training.loop import train
from mdprop.training.records import recorded
from mdprop.training.run import train_run
from mdprop.training.step import training_step
from mdprop.training.validation import recall_at_1

__all__ = ["make_examples", "recall_at_1", "recorded", "train", "train_run", "training_step"]
