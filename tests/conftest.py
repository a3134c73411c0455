from __future__ import annotations

from hypothesis import settings

# The first example of a property pays for imports and fonts; a deadline would measure those.
settings.register_profile("patient", settings(), deadline=None)
settings.load_profile("patient")
