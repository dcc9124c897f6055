"""Observations of real episodes in disorder: random legal moves, random switches, attacks, substations left split."""

from typing import Any

import numpy as np


def messy_observations(env: Any, catalogue: Any, seed: int, count: int, every: int = 6) -> list[Any]:
    """Copies of observations, one every `every` steps, from as many seeded episodes as it takes.

    Every third step plays a random legal move on some substation, every ninth a random legal line switch.
    """
    rng = np.random.default_rng(seed)
    seen: list[Any] = []
    while len(seen) < count:
        options = {"time serie id": int(rng.integers(len(env.chronics_handler.subpaths)))}
        obs, done, step = env.reset(seed=int(rng.integers(1000)), options=options), False, 0
        while not done and len(seen) < count and step < 120:
            step += 1
            if step % every == 0:
                seen.append(obs.copy())
            obs, _, done, _ = env.step(catalogue.action(random_move(rng, catalogue, obs, step), obs))
    return seen


def random_move(rng: np.random.Generator, catalogue: Any, obs: Any, step: int) -> tuple[int, ...]:
    if step % 3:
        return ()
    legal = np.flatnonzero(catalogue.legal(obs))
    if step % 9 == 0:
        switches = legal[catalogue.line[legal] >= 0]
        return (int(rng.choice(switches)),) if switches.size else ()
    substations = catalogue.substation[legal]
    return (int(rng.choice(legal[substations == rng.choice(substations[substations >= 0])])),)


def spread_ids(rng: np.random.Generator, catalogue: Any, obs: Any, per_substation: int, switches: int) -> np.ndarray:
    """Legal ids: do-nothing, a few of every substation, some line switches (reconnections first)."""
    legal = np.flatnonzero(catalogue.legal(obs))
    lines = legal[catalogue.line[legal] >= 0]
    reconnections = lines[(lines - 1) % 5 > 0]
    chosen = [0, *reconnections[:4], *rng.permutation(lines)[:switches]]
    for s in np.unique(catalogue.substation[legal]):
        if s >= 0:
            own = legal[catalogue.substation[legal] == s]
            chosen += rng.permutation(own)[:per_substation].tolist()
    return np.array(list(dict.fromkeys(int(i) for i in chosen)), np.int64)
