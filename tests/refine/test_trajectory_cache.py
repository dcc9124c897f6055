import pytest

from ace_ray.config.grid import GridSettings
from ace_ray.grid.scenarios.environment import make_env
from ace_ray.refine.trajectory_cache import Trail, Trails, fingerprint

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("name", ["l2rpn_case14_sandbox", "l2rpn_idf_2023"])
def test_a_copy_has_the_same_fingerprint_and_another_state_another_one(name):
    """Without an opponent, and with one that keeps an opponent of its own for each area."""
    env = make_env(GridSettings(env=name, data="shipped"))
    obs = env.reset(seed=0)
    copied = env.copy()
    assert fingerprint(env, obs) == fingerprint(copied, copied.get_obs())
    nothing, line = env.action_space(), env.action_space({"set_line_status": [(2, -1)]})
    after, elsewhere = env.step(nothing)[0], copied.step(line)[0]
    assert fingerprint(env, after) != fingerprint(copied, elsewhere)
    env.close()


def test_the_opponents_random_state_is_part_of_a_state(env, scenario):
    obs = env.reset(seed=0)
    before = fingerprint(env, obs)
    env._opponent.space_prng.rand()
    assert fingerprint(env, obs) != before


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
