import pytest

from ace_ray.refine.trajectory_cache import Trajectory, TrajectoryCache

pytestmark = pytest.mark.unit


def test_a_future_is_known_when_it_goes_on_long_enough_or_ends_black():
    trajectories = TrajectoryCache()
    trajectories.enter("a")
    living, dying = Trajectory(10, [1.0, 2.0, 3.0, 4.0]), Trajectory(10, [1.0, -1.0], dead=True)
    trajectories.passes(living, 12, b"x")
    trajectories.passes(dying, 11, b"y")
    assert trajectories.future(12, b"x", until=14) == ([3.0, 4.0], False)
    assert trajectories.future(12, b"x", until=13) == ([3.0], False)
    assert trajectories.future(12, b"x", until=15) is None
    assert trajectories.future(11, b"y", until=50) == ([-1.0], True)
    assert trajectories.future(12, b"y", until=13) is None
    trajectories.enter("b")
    assert trajectories.future(12, b"x", until=14) is None
