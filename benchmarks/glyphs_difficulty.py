"""How hard the embedded data set is: Recall@1 without any training.

    python benchmarks/glyphs_difficulty.py

Prints, for the validation and the test scripts, Recall@1 of raw pixels (Euclidean and cosine) and of
an untrained network (mean over seeds), and last the ratio of each to chance.
"""

from __future__ import annotations

import numpy as np
import torch

from mdprop.config import load_params
from mdprop.data.readers import glyphs as reader
from mdprop.data.readers.entries import entries_of
from mdprop.metrics import recall_at_k
from mdprop.models import build_model

SEEDS = 5


def main() -> None:
    params = load_params()
    glyphs = params.datasets["glyphs"]
    assert isinstance(glyphs, reader.Settings)
    splits = reader.read(glyphs, "datasets.glyphs")
    for split in ("val", "test"):
        entries = list(entries_of(splits[split]))
        names = sorted({entry.class_name for entry in entries})
        labels = np.array([names.index(entry.class_name) for entry in entries])
        pixels = np.stack([np.asarray(entry.read(), dtype=np.float32) / 255 for entry in entries])
        flat = pixels.reshape(len(pixels), -1)
        found = {
            "raw pixels, Euclidean": [recall_at_k(flat, labels, [1])[1]],
            "raw pixels, cosine": [recall_at_k(_unit(flat), labels, [1])[1]],
            "untrained network": [_untrained(pixels, labels, seed) for seed in range(SEEDS)],
        }
        chance = (glyphs.images_per_class - 1) / (len(labels) - 1)
        print(f"{split}: {len(labels)} images of {len(names)} classes, chance {chance:.3f}")
        for name, values in found.items():
            mean, spread = np.mean(values), np.std(values)
            print(f"  {name}: Recall@1 {mean:.3f} ± {spread:.3f}, {mean / chance:.1f} x chance")


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@torch.no_grad()
def _untrained(pixels: np.ndarray, labels: np.ndarray, seed: int) -> float:
    torch.manual_seed(seed)
    model = build_model("conv4", 128, mean=(0.5,), std=(0.25,)).eval()
    return recall_at_k(model(torch.from_numpy(pixels)[:, None]), labels, [1])[1]


if __name__ == "__main__":
    main()
