"""What a decision engine does on a few fixed states: its fingerprint, by which labels know their age.

Outcomes, and so all labels, depend on the controller that continues after the compared action: predicate, rules,
candidates and scores. A hash covers the settings but not the code. So the engine's behaviour is recorded where labels
are made, and compared where they are used. Values are stored rather than hashed: the last digits of a power flow differ
between machines, and a hash would change when a digit is at the edge of its rounding.

Eight states are a sample: a change that affects one decision in hundreds may pass unnoticed.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ace_ray.config.grid import GridSettings
from ace_ray.grid.engine import DecisionEngine
from ace_ray.grid.physics.catalogue import SUBSTATION
from ace_ray.grid.scenarios.environment import make_env
from ace_ray.grid.scenarios.scenario import Scenario, reset_to

Behaviour = list[dict[str, Any]]

TOLERANCE = 2e-3  # of a score (a rho); power flows of two machines differ by 1e-6
_STATES = 8
_STEPS = 4  # from a scenario's start to the state: a step in which security is checked, and a revert may be tried
_BEST = 6
_FIRST_SEED = 40_000  # a range of its own beside those of the splits


def behaviour(settings: GridSettings) -> Behaviour:
    """What the engine decides in the fixed states, as plain JSON types; costs about a second.

    The states are spread over the training chronics and the week. Each comes four steps after a start; on the way a
    line is taken out in two of three and a substation is split in every second one, none of it chosen by the engine.

    Args:
        settings: under which the engine decides; an environment of them is made and closed.

    Returns:
        For each state: `kind` (None where it is not critical), `rules` (ids that the rules would play), and of the
        decision `accompany` and the best slots as `scores` {id: score}. Only `{"ended": step}` where the grid goes
        black on the way.

    Raises:
        DataError: the environment or its data are not on this machine.
    """
    env = make_env(settings)
    try:
        engine = DecisionEngine(env, settings)
        return [_decided(env, engine, settings, i) for i in range(_STATES)]
    finally:
        env.close()


def same(one: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]]) -> bool:
    """Whether two behaviours are one, but for what two machines may differ by."""
    return len(one) == len(other) and all(map(_same_state, one, other))


def _same_state(a: dict[str, Any], b: dict[str, Any]) -> bool:
    if {**a, "scores": None} != {**b, "scores": None}:
        return False
    return _covers(a.get("scores", {}), b.get("scores", {})) and _covers(b.get("scores", {}), a.get("scores", {}))


def _covers(known: dict[str, float], asked: dict[str, float]) -> bool:
    """Whether every asked id scores the same in `known`, or may have been cut off there: no better than the last."""
    last = min(known.values(), default=-np.inf)
    return all(
        abs(known[i] - score) <= TOLERANCE if i in known else score <= last + TOLERANCE for i, score in asked.items()
    )


def _decided(env: Any, engine: DecisionEngine, settings: GridSettings, number: int) -> dict[str, Any]:
    scenario = _scenario(env, settings, number)
    obs, catalogue = reset_to(env, scenario), engine.catalogue
    moves = np.flatnonzero(catalogue.kind == SUBSTATION)
    played = {}
    if number % 3 < 2:
        played[0] = catalogue.find_line((5 * number + 2) % engine.model.n_line, status=-1) or 0
    if number % 2:
        played[1] = int(moves[(7919 * number) % len(moves)])
    for step in range(_STEPS):
        obs, _, done, _ = env.step(engine.action((played.get(step, 0),), obs))
        if done:
            return {"ended": step + 1}
    decision = engine.decide(obs)
    legal = np.flatnonzero(decision.mask)
    best = legal[np.argsort(-decision.score[legal], kind="stable")][:_BEST]
    return {
        "kind": engine.critical(obs),
        "rules": list(engine.rules.calm_action(obs)),
        "accompany": list(decision.accompany),
        "scores": {str(decision.ids[slot]): round(float(decision.score[slot]), 5) for slot in best},
    }


def _scenario(env: Any, settings: GridSettings, number: int) -> Scenario:
    data = env.ace_data
    chronics = data.split["train"]
    scenario = Scenario(settings.env, data.id, chronics[number % len(chronics)], _FIRST_SEED + number)
    steps = data.steps(scenario.chronic)
    return replace(scenario, start_step=max(0, number * steps // _STATES))
