"""What the tests of many rooms share: one environment, one engine, one played episode."""

import os
from dataclasses import replace
from pathlib import Path

import hypothesis
import pytest

from ace_ray.config.grid import GridSettings
from ace_ray.grid.scenarios.environment import make_env
from ace_ray.grid.scenarios.scenario import Scenario, reset_to

TRACK1 = "l2rpn_neurips_2020_track1"

# A busy machine is no failure: how long an example takes is measured by benches, never by tests.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def grid_settings() -> GridSettings:
    """The default grid on the two chronics inside the grid2op package: opponent and planned maintenance."""
    return GridSettings(env=TRACK1, data="shipped")


@pytest.fixture(scope="session")
def env(grid_settings):
    """The 36-substation environment with opponent and maintenance. Reset it before use; others use it too."""
    environment = make_env(grid_settings)
    yield environment
    environment.close()


@pytest.fixture(scope="session")
def case14():
    """The 14-substation sandbox: small enough to enumerate everything."""
    environment = make_env(GridSettings(env="l2rpn_case14_sandbox", data="shipped"))
    yield environment
    environment.close()


@pytest.fixture(scope="session")
def engine(env, grid_settings):
    """The decision engine of `env`."""
    from ace_ray.grid.engine import DecisionEngine

    return DecisionEngine(env, grid_settings)


@pytest.fixture(scope="session")
def catalogue(env):
    """The catalogue of `env`."""
    from ace_ray.grid.physics.catalogue import Catalogue

    return Catalogue.from_env(env)


@pytest.fixture(scope="session")
def scenario() -> Scenario:
    """A scenario in whose first 150 steps the opponent attacks."""
    return Scenario(TRACK1, "shipped", "Scenario_august_dummy", env_seed=3)


@pytest.fixture(scope="session")
def episode_observations(env, scenario) -> list:
    """Copies of the observations of a do-nothing episode, attacks included, up to step 200 or the blackout."""
    obs, done, seen = reset_to(env, scenario), False, []
    while not done and len(seen) < 200:
        seen.append(obs.copy())
        obs, _, done, _ = env.step(env.action_space())
    return seen


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of development data sets that ACE_TEST_DATA names; tests that need it skip where it is not set."""
    folder = os.environ.get("ACE_TEST_DATA")
    if not folder:
        pytest.skip("ACE_TEST_DATA is not set: it names the folder of development data sets")
    return Path(folder).resolve()  # as data sets are named


@pytest.fixture(scope="session")
def short_settings(grid_settings):
    """The default grid with a comparison horizon of 12 steps."""
    return grid_settings.model_copy(
        update={"compare": grid_settings.compare.model_copy(update={"horizon": 12, "first": 3})}
    )


@pytest.fixture(scope="session")
def own_env(short_settings):
    """An environment that only the comparator steps."""
    environment = make_env(short_settings)
    yield environment
    environment.close()


@pytest.fixture(scope="session")
def own_engine(own_env, short_settings):
    own_env.reset()
    from ace_ray.grid.engine import DecisionEngine

    return DecisionEngine(own_env, short_settings)


@pytest.fixture()
def comparator(own_env, own_engine, short_settings):
    from ace_ray.refine.builder import make_comparator

    return make_comparator(own_env, own_engine)


@pytest.fixture(scope="session")
def greedy_decisions(env, own_engine, short_settings, scenario):
    """`[(snapshot, played id)]` of the first decisions of greedy on the scenario, capped at 600 steps."""
    from ace_ray.agents.greedy import greedy_slot
    from ace_ray.grid.decision_env import DecisionEnv

    decision_env = DecisionEnv(env, own_engine, short_settings)
    _, info = decision_env.reset(options={"scenario": replace(scenario, max_steps=600)})
    found = []
    while info["decision"] is not None and len(found) < 6:
        slot = greedy_slot(info["decision"])
        found.append((decision_env.snapshot(), int(info["decision"].ids[slot])))
        info = decision_env.step(slot)[-1]
    assert len(found) >= 3
    return found
