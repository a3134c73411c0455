"""A trained model at work: an index of a folder of images, search in it, one image attacked, exports."""

from mdprop.deploy.attack import attack_image
from mdprop.deploy.export import export_model
from mdprop.deploy.index import ImageIndex, build_index
from mdprop.deploy.search import search
from mdprop.deploy.trained import Trained

__all__ = ["ImageIndex", "Trained", "attack_image", "build_index", "export_model", "search"]
