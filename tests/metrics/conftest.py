from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

GOLDEN = Path(__file__).parents[1] / "golden" / "metrics.npz"


@pytest.fixture(scope="session")
def golden() -> dict[str, np.ndarray]:
    """Features, labels and clusters, and what the authors' functions make of them."""
    with np.load(GOLDEN) as arrays:
        return dict(arrays)
