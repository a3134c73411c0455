from __future__ import annotations

import os
import signal

from hypothesis import settings

# The networks of the tests are tiny: more threads only wait for each other, and for xdist's other workers.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The first example of a property pays for imports and fonts; a deadline would measure those.
settings.register_profile("patient", settings(), deadline=None)
settings.load_profile("patient")

# A shell that starts the tests with & lets them and what they start ignore Ctrl-C, which some of them send.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
