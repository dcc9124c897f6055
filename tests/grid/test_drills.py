"""A drill's attack is the environment's own, and its maintenance is Grid2Op's; nothing of either stays behind."""

from dataclasses import replace

import numpy as np
import pytest

from ace_ray.config.errors import DataError
from ace_ray.grid import grid2op_internals as internals
from ace_ray.grid.scenarios.drills import Drill, drilled, undisturbed
from ace_ray.grid.scenarios.scenario import Scenario, reset_to

from ..conftest import TRACK1

pytestmark = pytest.mark.unit

SURVIVED = Scenario(TRACK1, "shipped", "Scenario_august_dummy", env_seed=0, max_steps=100)
DEADLY = Scenario(TRACK1, "shipped", "Scenario_august_dummy", env_seed=6, start_step=100, max_steps=100)


def played(env, scenario):
    """`[(observation, what simulate foretells, attacked line or None, done)]` after each step of doing nothing."""
    obs, done, seen = reset_to(env, scenario), False, []
    while not done and len(seen) < scenario.max_steps:
        obs, _, done, info = env.step(env.action_space())
        attacked = info["opponent_attack_line"]
        foretold = np.zeros(0) if done else obs.simulate(env.action_space())[0].to_vect()
        seen.append((obs.to_vect(), foretold, None if attacked is None else int(np.flatnonzero(attacked)[0]), done))
    return seen


@pytest.mark.parametrize("scenario", [SURVIVED, DEADLY], ids=["survived", "deadly"])
def test_an_attack_is_the_environments_own_on_the_same_line_at_the_same_step(env, scenario):
    own = played(env, scenario)
    first = next(step for step, (_, _, line, _) in enumerate(own) if line is not None)
    drill = Drill("attack", scenario, warm_up=first, line=own[first][2], outage=internals.attack_duration(env))
    with drilled(env, replace(drill, line=drill.line + 1)):  # whatever an episode before it has left
        reset_to(env, scenario)
    with drilled(env, drill):
        forced = played(env, scenario)
    assert len(own) == len(forced) and (len(own) < scenario.max_steps) == (scenario is DEADLY)
    for (obs, foretold, line, done), (same, too, other, end) in zip(own, forced, strict=True):
        assert (line, done) == (other, end)
        np.testing.assert_array_equal(obs, same)
        np.testing.assert_array_equal(foretold, too)
    assert sum(line is not None for _, _, line, _ in own) == (10 if scenario is DEADLY else drill.outage)


def test_the_environment_is_its_own_again_after_a_drill(env):
    short = replace(SURVIVED, max_steps=25)
    before = played(env, short)
    with undisturbed(env):
        assert all(line is None for _, _, line, _ in played(env, short))
    with drilled(env, Drill("attack", short, 3, 13, 48)):
        played(env, replace(short, max_steps=5))
    after = played(env, short)
    assert any(line is not None for _, _, line, _ in before)
    assert [line for _, _, line, _ in before] == [line for _, _, line, _ in after]
    np.testing.assert_array_equal(before[-1][0], after[-1][0])


def test_in_a_load_rise_the_line_is_in_maintenance_that_was_announced(env):
    scenario = Scenario(TRACK1, "shipped", "Scenario_august_dummy", env_seed=0, start_step=50, max_steps=41)
    out, told, cooldown = [], [], []
    with drilled(env, Drill("load-rise", scenario, warm_up=5, line=13, outage=20)):
        obs = reset_to(env, scenario)
        told.append(int(obs.time_next_maintenance[13]))
        for _ in range(40):
            obs, _, done, info = env.step(env.action_space())
            assert not done and info["opponent_attack_line"] is None
            out.append(not obs.line_status[13])
            cooldown.append(int(obs.time_before_cooldown_line[13]))
    assert told == [6] and out == [False] * 5 + [True] * 35  # nobody brings it back
    assert cooldown[5] == 20 and cooldown[24] == 1 and cooldown[25] == 0
    assert reset_to(env, scenario).time_next_maintenance[13] != 6, "the next episode has the chronic's own plan"


def test_what_cannot_be_drilled_is_refused(env, case14):
    scenario = Scenario(TRACK1, "shipped", "Scenario_august_dummy", env_seed=0)
    for grid, drill, words in (
        (env, Drill("attack", scenario, 3, env.n_line, 48), "lines"),
        (env, Drill("attack", scenario, 3, 5, 49), "lasts 48 at most"),
        (case14, Drill("attack", scenario, 3, 5, 48), "lasts 0 at most"),
    ):
        with pytest.raises(DataError, match=words), drilled(grid, drill):
            pytest.fail("the drill begins")
