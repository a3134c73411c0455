"""Training: the step and the loop around it."""

from mdprop.training.loop import train
from mdprop.training.step import TrainingAttack, attack_batch, training_step

__all__ = ["TrainingAttack", "attack_batch", "train", "training_step"]
