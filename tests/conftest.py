"""Settings that every test shares."""

from __future__ import annotations

import os

from hypothesis import settings

# No deadline: a slow machine is no failure. No database: a run depends on nothing but the code.
settings.register_profile("default", deadline=None, database=None)
# In CI the examples are the same each time, so that a run repeats.
settings.register_profile("ci", settings.get_profile("default"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")
