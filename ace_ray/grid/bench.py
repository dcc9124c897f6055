"""`ace bench rollout`: what a rollout worker does in a second on this machine."""

import time

import numpy as np

from ace_ray.config.grid import GridSettings
from ace_ray.grid.decision_env import DecisionEnv
from ace_ray.grid.engine import DecisionEngine
from ace_ray.grid.environment import make_env
from ace_ray.grid.scenario_sets import training_scenarios


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
