from __future__ import annotations

import os

from hypothesis import settings

# The networks of the tests are tiny: more threads only wait for each other, and for xdist's other workers.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The first example of a property pays for imports and fonts; a deadline would measure those.
settings.register_profile("patient", settings(), deadline=None)
settings.load_profile("patient")
