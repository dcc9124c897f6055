"""`ace bench screen` and `ace bench rollout`: what a decision costs on this machine."""

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from ace_ray.config.grid import GridSettings
from ace_ray.grid.decision_env import DecisionEnv
from ace_ray.grid.engine import DecisionEngine
from ace_ray.grid.environment import make_env
from ace_ray.grid.linear import FactorCache
from ace_ray.grid.model import GridState
from ace_ray.grid.scenario import reset_to
from ace_ray.grid.scenario_sets import training_scenarios

_SPACING = 5
_KEPT = 8  # best partitions kept of each substation while ranking


def measure_screen(settings: GridSettings, states: int, seed: int = 0) -> list[str]:
    """Time the ranking of all topology actions and a whole decision, on states some steps apart without any action.

    Returns:
        Lines to print; times are medians over states, the first (compilation) left out.
    """
    env = make_env(settings)
    engine = DecisionEngine(env, settings)
    cache = FactorCache(engine.model)
    rank, decide = [], []
    for obs in _states(env, settings, states + 1, seed):
        begun = time.perf_counter()
        engine.screen.rank(cache.linearise(GridState.from_observation(engine.model, obs)), _KEPT)
        ranked = time.perf_counter()
        engine.decide(obs)
        rank.append(1e3 * (ranked - begun))
        decide.append(1e3 * (time.perf_counter() - ranked))
    slots = engine.spec.slots
    return [
        f"{settings.env}: {engine.catalogue.size:,} actions, {len(rank) - 1} states",
        f"rank every topology action (linear)       {_spread(rank[1:])}",
        f"decide: screen, AC check, security, {slots} slots {_spread(decide[1:])}",
    ]


def measure_rollout(settings: GridSettings, seconds: float, seed: int = 0) -> list[str]:
    """Play training scenarios greedily for some seconds, as one rollout worker does.

    Returns:
        Lines to print.
    """
    env = make_env(settings)
    decision_env = DecisionEnv(env, DecisionEngine(env, settings), settings)
    scenarios = training_scenarios(settings, seed)
    decisions = steps = episodes = 0
    state, info = decision_env.reset(options={"scenario": next(scenarios)})  # reads the chronics and compiles
    ended = info["decision"] is None
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        if ended:
            state, info = decision_env.reset(options={"scenario": next(scenarios)})
            ended = info["decision"] is None
            continue
        state, _, terminated, truncated, info = decision_env.step(int(np.argmax(state["score"])))
        ended = terminated or truncated
        decisions, steps, episodes = decisions + 1, steps + info["steps"], episodes + ended
    took = time.perf_counter() - begun
    return [
        f"{settings.env}: {took:.1f} s, {episodes} episodes ended",
        f"{decisions / took:8.1f} decisions a second",
        f"{steps / took:8.1f} environment steps a second in {decisions} segments",
    ]


def _states(env: Any, settings: GridSettings, count: int, seed: int) -> Iterator[Any]:
    """`count` observations, `_SPACING` steps apart, of training scenarios in which nothing is done."""
    for scenario in training_scenarios(settings, seed):
        obs, done = reset_to(env, scenario), False
        while not done:
            yield obs
            count -= 1
            if count == 0:
                return
            for _ in range(_SPACING):
                obs, _, done, _ = env.step(env.action_space())
                if done:
                    break


def _spread(milliseconds: list[float]) -> str:
    low, middle, high = np.percentile(milliseconds, [10, 50, 90])
    return f"{middle:8.1f} ms  (10-90 %: {low:.1f} to {high:.1f})"
