"""Retrieval and embedding-space measures, on numpy arrays or torch tensors."""

from __future__ import annotations

from mdprop.metrics.clustering import clustering_scores, nmi_f1
from mdprop.metrics.geometry import embedding_density, spectral_decay
from mdprop.metrics.neighbours import nearest_neighbours
from mdprop.metrics.retrieval import Retrieval, mean_average_precision, recall_at_k, retrieve

__all__ = [
    "Retrieval",
    "clustering_scores",
    "embedding_density",
    "mean_average_precision",
    "nearest_neighbours",
    "nmi_f1",
    "recall_at_k",
    "retrieve",
    "spectral_decay",
]
