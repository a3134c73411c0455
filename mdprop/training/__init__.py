"""Training: the step and the loop around it."""

from mdprop.training.loop import train
from mdprop.training.step import TrainingAttack, attack_batch, training_step
from mdprop.training.validation import recall_at_1

__all__ = ["TrainingAttack", "attack_batch", "recall_at_1", "train", "training_step"]
