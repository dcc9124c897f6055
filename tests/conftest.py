"""What the tests of many rooms share: one environment, one engine, one played episode."""

import os
from pathlib import Path

import pytest

from ace_ray.config.grid import GridSettings
from ace_ray.grid.environment import make_env
from ace_ray.grid.scenario import Scenario, reset_to

TRACK1 = "l2rpn_neurips_2020_track1"


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
    from ace_ray.grid.catalogue import Catalogue

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
