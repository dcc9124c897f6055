import pytest

from ace_ray.config.grid import GridSettings
from ace_ray.grid.scenarios.environment import make_env
from ace_ray.grid.simulator import state_digest

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("name", ["l2rpn_case14_sandbox", "l2rpn_idf_2023"])
def test_a_copy_has_the_same_digest_and_another_state_another_one(name):
    """Without an opponent, and with one that keeps an opponent of its own for each area."""
    env = make_env(GridSettings(env=name, data="shipped"))
    obs = env.reset(seed=0)
    copied = env.copy()
    assert state_digest(env, obs) == state_digest(copied, copied.get_obs())
    nothing, line = env.action_space(), env.action_space({"set_line_status": [(2, -1)]})
    after, elsewhere = env.step(nothing)[0], copied.step(line)[0]
    assert state_digest(env, after) != state_digest(copied, elsewhere)
    env.close()


def test_the_opponents_random_state_is_part_of_a_state(env, scenario):
    obs = env.reset(seed=0)
    before = state_digest(env, obs)
    env._opponent.space_prng.rand()
    assert state_digest(env, obs) != before
