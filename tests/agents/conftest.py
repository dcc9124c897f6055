"""A short hard scenario of the shipped data, and decisions on it."""

from dataclasses import replace

import pytest

from ace_ray.agents.comparator import Comparator
from ace_ray.agents.greedy import greedy_slot
from ace_ray.grid.decision_env import DecisionEnv
from ace_ray.grid.engine import DecisionEngine
from ace_ray.grid.environment import make_env


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
    return DecisionEngine(own_env, short_settings)


@pytest.fixture()
def comparator(own_env, own_engine, short_settings):
    return Comparator(own_env, own_engine, short_settings)


@pytest.fixture(scope="session")
def greedy_decisions(env, own_engine, short_settings, scenario):
    """`[(snapshot, played id)]` of the first decisions of greedy on the scenario, capped at 600 steps."""
    decision_env = DecisionEnv(env, own_engine, short_settings)
    _, info = decision_env.reset(options={"scenario": replace(scenario, max_steps=600)})
    found = []
    while info["decision"] is not None and len(found) < 6:
        slot = greedy_slot(info["decision"])
        found.append((decision_env.snapshot(), int(info["decision"].ids[slot])))
        info = decision_env.step(slot)[-1]
    assert len(found) >= 3
    return found
