"""Measure a network from elsewhere against a suite of attacks.

On images that are prepared already (`dvc repro prepare`), one command does the same:

    mdprop measure examples/measure_a_network.py:network --out measured/small_images
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from torch import nn

from mdprop.attacks import Threat
from mdprop.config import load_params
from mdprop.data.loading.transforms import test_transform
from mdprop.data.prepare import prepare
from mdprop.report.aggregate import aggregate, collect
from mdprop.report.intervals import read_intervals
from mdprop.report.terminal import terminal_table
from mdprop.robustness.measure import measure
from mdprop.robustness.networks import Network
from mdprop.robustness.stores import clean_stores

PARAMS = Path(__file__).parents[1] / "params.yaml"


def network() -> nn.Module:
    """Pixels [B, 1, 28, 28] in [0, 1] -> embeddings [B, 49]: the image itself, four times smaller."""
    return nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.LayerNorm(49, elementwise_affine=False))


def main() -> None:
    params = load_params(PARAMS)
    images = params.datasets["glyphs"].model_copy(update={"images_per_class": 4})
    suite = {
        "towards_another": Threat(goal="single_target", epsilon=0.1, steps=4, step_ratio=0.5),
        "away": Threat(goal="untargeted", epsilon=0.1, steps=4, step_ratio=0.5),
    }
    adversary = params.adversary.model_copy(update={"sets": suite, "queries": 200})
    with tempfile.TemporaryDirectory() as folder:
        prepared, out = Path(folder) / "images", Path(folder) / "small_images"
        prepare("glyphs", images, prepared)
        run = measure(
            Network.of(network(), images.mean, images.std),
            out,
            clean_stores(prepared),
            test_transform(images.resize, images.image_size),
            adversary,
            params.evaluate,
        )
        print(terminal_table(aggregate(collect([run])), suite, intervals=read_intervals([run])))


if __name__ == "__main__":
    main()
