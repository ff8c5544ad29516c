"""For all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# The same examples on every run, and no limit on time: a busy machine must not make a test fail.
settings.register_profile("elias", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("elias")
