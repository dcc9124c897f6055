import numpy as np
import pytest

from ace_ray.grid.opponent import AttackClock, GameRules, Opponent
from ace_ray.grid.scenarios.scenario import reset_to

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def opponent(env, engine):
    return Opponent.from_env(env, engine.security.lines)


def test_the_next_attack_is_as_likely_as_the_opponent_itself_weighs_its_lines(env, opponent, episode_observations):
    for obs in episode_observations[::20]:
        contingencies = opponent.contingencies(obs, 0)
        own = env._opponent
        weights = np.where(obs.line_status[own._lines_ids], obs.rho[own._lines_ids] / own._rho_normalization, 0.0)
        expected = dict(zip(own._lines_ids, weights / weights.sum(), strict=True))
        assert contingencies.planned == 0
        assert contingencies.weights == pytest.approx([expected[line] for line in contingencies.lines])


def test_maintenance_that_begins_soon_is_a_certain_loss(opponent, episode_observations):
    obs = episode_observations[0].copy()
    obs.time_next_maintenance[:] = -1
    line = next(k for k in range(obs.n_line) if k not in opponent.lines)
    obs.time_next_maintenance[line] = 5
    contingencies = opponent.contingencies(obs, 5)
    assert contingencies.planned == 1 and contingencies.weights[list(contingencies.lines).index(line)] == 1.0
    assert opponent.contingencies(obs, 4).planned == 0


def test_the_clock_agrees_with_the_opponent_s_own_counters(env, engine, scenario):
    obs, done = reset_to(env, scenario), False
    clock, space, attacks = AttackClock(engine.opponent, GameRules.from_env(env)), env._oppSpace, 0
    while not done and env.nb_time_step < 250:
        resting = max(space.current_attack_cooldown - space.attack_cooldown, 0)
        lasting = max(space.current_attack_duration - 1, 0)
        attacks += lasting > 0
        assert clock.steps_until_attack(obs) == max(resting, lasting)
        obs, _, done, _ = env.step(env.action_space())
    assert attacks > 0


@pytest.mark.parametrize(("maintained", "waits"), [(False, True), (True, False)])
def test_maintenance_of_an_attackable_line_is_no_attack(opponent, engine, episode_observations, maintained, waits):
    clock = AttackClock(opponent, engine.game)
    before, after = episode_observations[0].copy(), episode_observations[0].copy()
    line = int(opponent.lines[0])
    after.line_status[line], after.time_before_cooldown_line[line] = False, 40
    if maintained:
        after.time_next_maintenance[line] = 0
    assert clock.steps_until_attack(before) == 0
    assert (clock.steps_until_attack(after) > 0) == waits


def test_a_grid_without_an_opponent_has_no_threats_but_maintenance(case14):
    case14.reset()
    opponent = Opponent.from_env(case14, np.arange(case14.n_line))
    obs = case14.get_obs()
    assert opponent.lines.size == 0 and opponent.contingencies(obs, 0).lines.size == 0


def test_a_line_is_tripped_after_the_steps_that_are_tolerated_or_at_once_when_far_above_its_limit():
    game = GameRules(substation_rest=3, line_rest=3, tripped_rest=12, tolerated=2, hard_rho=2.0)
    overflow = np.array([0, 1, 2, 2, 3, 0])
    rho = np.array([[1.5, 1.5, 1.5, 0.99, 1.01, 2.0], [0.5, 0.5, 0.5, 0.5, 0.5, 1.99]])
    assert game.tripped(overflow, rho).tolist() == [[False, False, True, False, True, True], [False] * 6]
