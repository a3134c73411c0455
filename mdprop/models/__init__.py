"""Backbone and embedding head: building, saving, loading, export."""

from mdprop.models.build import build_model
from mdprop.models.embedder import Embedder
from mdprop.models.files import export_network, load_model, save_model
from mdprop.models.layout import place
from mdprop.models.parts import parameter_groups

__all__ = [
    "Embedder",
    "build_model",
    "export_network",
    "load_model",
    "parameter_groups",
    "place",
    "save_model",
]
