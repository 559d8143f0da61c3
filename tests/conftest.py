"""How the properties are tested everywhere: no timing limits, and in CI the same examples each time.

A loaded machine must not fail a property because it was slow; a red run in CI must be red again when it is
looked into. On a developer's machine the examples are new each time, which is how new faults are found.
"""

import os

from hypothesis import settings

settings.register_profile("anywhere", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "anywhere")
