"""How many random requests a test sends to a running app."""

from hypothesis import HealthCheck, settings

quickly = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
