"""A contract: what this project reads of Grid2Op's private attributes is there, and is what its name says."""

import re
from pathlib import Path

import numpy as np
import pytest

import ace_ray
from ace_ray.grid import grid2op_internals as internals
from ace_ray.grid.scenarios.scenario import reset_to

pytestmark = pytest.mark.unit

PRIVATE = re.compile(
    r"\b(?!self|cls)\w+\._(?:grid|oppSpace|opponent\w*|lines_ids|kwargs_opponent|topo_vect\w*|protection_counter|env_modification"
    r"|helper_action\w*|shunt_\w+|forecasted\w*|obs_env|h_forecast|episode_max_time|recovery_minimum\w*)\b"
)


@pytest.fixture(scope="module")
def started(env, scenario):
    """The 36-substation environment after the reset, and its observation."""
    return env, reset_to(env, scenario)


def test_the_environment_shows_its_grid_and_its_elements(started):
    env, _ = started
    assert len(internals.power_grid(env).get_lines()) + len(internals.power_grid(env).get_trafos()) == env.n_line
    assert np.bincount(internals.substation_of_element(env), minlength=env.n_sub).tolist() == env.sub_info.tolist()
    assert internals.protection_counter(env).shape == (env.n_line,)


def test_the_opponent_shows_its_lines_rest_and_duration(started):
    env, _ = started
    (opponent,) = internals.opponents(env)
    names = internals.opponent_settings(env)["lines_attacked"]
    assert [env.name_line[line] for line in internals.opponent_lines(opponent)] == names
    assert internals.attack_duration(env) > 0 and internals.attack_rest(env) > 0
    assert internals.opponent_areas(env) == ()
    assert len(list(internals.opponent_states(env))) == 2


def test_an_environment_without_opponent_attacks_nothing(case14):
    assert [internals.opponent_lines(opponent) for opponent in internals.opponents(case14)] == [[]]


def test_what_a_step_did_is_told(env, scenario):
    obs = reset_to(env, scenario)
    attacked = []
    for _ in range(150):
        obs, _, done, info = env.step(env.action_space())
        attack = internals.last_attack(env)
        attacked.append(attack is not None and info["opponent_attack_line"] is not None)
        if done or attacked[-1]:
            break
    assert attacked[-1], "the opponent attacks within 150 steps of this scenario"
    assert internals.environment_action_space(env).n == internals.environment_action(env).to_vect().size
    assert internals.opponent_action_space(env).n == internals.last_attack(env).to_vect().size
    internals.forget_attacks(env, 100)
    assert internals.last_attack(env) is None


def test_another_opponent_takes_the_place_of_the_environments_own_for_a_while(env, scenario):
    (own,) = internals.opponents(env)
    other = type(own)(internals.opponent_action_space(env))
    asked = []
    other.reset = lambda budget: None
    other.attack = lambda *seen: asked.append(seen[3]) or (None, 0)
    with internals.attacked_by(env, other):
        reset_to(env, scenario)
        asked.clear()
        env.step(env.action_space())
        assert asked == [np.inf] and internals.opponent(env) is own
    asked.clear()
    reset_to(env, scenario)
    env.step(env.action_space())
    assert asked == []


def test_an_observation_shows_shunts_and_its_forecast(started):
    _, obs = started
    bus, p, q, v = internals.shunts(obs)
    assert len(bus) == len(p) == len(q) == len(v) == obs.n_shunt > 0
    assert internals.has_forecast(obs)
    known, simulated = internals.forecast_parts(obs)
    assert isinstance(known, dict) and hasattr(simulated, "simulate")
    stamp, injections = internals.forecast_injections(obs)
    assert injections["injection"]["load_p"].shape == (obs.n_load,)
    internals.replace_forecast(obs, stamp, injections)
    assert internals.NEXT not in known


def test_time_series_tell_their_horizons(started):
    env, _ = started
    series = env.chronics_handler.real_data.data
    assert len(internals.forecast_horizons(series)) >= 1


def test_nothing_else_reads_a_private_attribute_of_grid2op():
    package = Path(ace_ray.__file__).parent
    found = [
        f"{path.relative_to(package)}: {line.strip()}"
        for path in sorted(package.rglob("*.py"))
        if path.name != "grid2op_internals.py"
        for line in path.read_text(encoding="utf-8").splitlines()
        if PRIVATE.search(line)
    ]
    assert found == []
