"""The head's agent takes any free port while a local Ray starts, and only then."""

import pytest
from ray._private.parameter import RayParams

from ace_ray.coevolution.connect import _any_agent_port

pytestmark = pytest.mark.unit


def test_a_second_ray_on_the_machine_does_not_take_the_jobs_api_away():
    before = parameters()
    with _any_agent_port():
        inside = parameters()
    assert inside["dashboard_agent_listen_port"] == 0 and before["dashboard_agent_listen_port"] != 0
    assert {name for name in before if before[name] != inside[name]} == {"dashboard_agent_listen_port"}
    assert parameters() == before


def parameters() -> dict[str, object]:
    """What Ray would start a head with; objects that are made anew each time are left out."""
    return {name: value for name, value in vars(RayParams()).items() if name != "resource_isolation_config"}
