import pytest

from ace_ray.refine.trajectory_cache import Trail, Trails

pytestmark = pytest.mark.unit


def test_a_future_is_known_when_it_goes_on_long_enough_or_ends_black():
    trails = Trails()
    trails.enter("a")
    living, dying = Trail(10, [1.0, 2.0, 3.0, 4.0]), Trail(10, [1.0, -1.0], dead=True)
    trails.passes(living, 12, b"x")
    trails.passes(dying, 11, b"y")
    assert trails.future(12, b"x", until=14) == ([3.0, 4.0], False)
    assert trails.future(12, b"x", until=13) == ([3.0], False)
    assert trails.future(12, b"x", until=15) is None
    assert trails.future(11, b"y", until=50) == ([-1.0], True)
    assert trails.future(12, b"y", until=13) is None
    trails.enter("b")
    assert trails.future(12, b"x", until=14) is None
