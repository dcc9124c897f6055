"""What is predicted from an observation beside what a copy of the environment really does when the action is played.

An action is chosen at step t and meets the injections of t + 1. So the prediction starts from a copy that plays
nothing: its observation has those injections, and the attack and maintenance of that step, on the topology of t.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ace_ray.config.errors import DataError
from ace_ray.grid.engine import DecisionEngine
from ace_ray.grid.physics.catalogue import SUBSTATION
from ace_ray.grid.physics.kernels import ISLAND
from ace_ray.grid.physics.model import GridState
from ace_ray.grid.physics.newton import tangent
from ace_ray.grid.scenarios.scenario import Scenario, reset_to
from tests.grid.messy import random_move, spread_ids

TRIPS = 1.0 - 1e-4  # rho from which the protections may act
UNUSABLE = 1e29  # rho squared that the ranking gives to what cuts the grid in two
CHRONICS = 4  # to parse one takes longer than to play ten of its episodes
CALM = 1.2  # max rho over which nothing linear is compared


@dataclass
class Played:
    """Differences found, and how much was met on the way."""

    ac: list[float] = field(default_factory=list)  # |AC check - played|, largest of all lines
    screen: list[float] = field(default_factory=list)  # |linear - played| of the max rho
    newton: list[float] = field(default_factory=list)  # the same of the ranking in overloaded states, partitions only
    exact_outage: list[float] = field(default_factory=list)  # |exact security - played with the line opened|
    linear_outage: list[float] = field(default_factory=list)
    called_wrongly: list[bool] = field(default_factory=list)  # linear security on the wrong side of 1.05
    dark: int = 0  # foreseen blackouts
    tripped: int = 0  # the protections opened what was foreseen over its limit
    met: dict[str, int] = field(default_factory=dict)


def scenarios(env: Any, seed: int) -> Iterator[Scenario]:
    """Endless scenarios over a few chronics, the seed and the start drawn."""
    data, rng = env.ace_data, np.random.default_rng(seed)
    few = rng.permutation(data.chronics)[:CHRONICS]
    while True:
        for chronic in few:
            start = int(rng.integers(0, max(1, data.steps(chronic) - 100)))
            yield Scenario(env.ace_name, data.id, str(chronic), int(rng.integers(2**31 - 1)), start)


def beginnings(env: Any, seed: int) -> Iterator[Any]:
    """First observations of endless scenarios, but those that are over before they begin.

    Where maintenance is planned, every scenario is followed by one that starts five steps before it.
    """
    for scenario in scenarios(env, seed):
        with suppress(DataError):
            obs = reset_to(env, scenario)
            planned = obs.time_next_maintenance[obs.time_next_maintenance > 5]
            yield obs
            if planned.size:
                yield reset_to(env, replace(scenario, start_step=scenario.start_step + int(planned.min()) - 5))


def compare(env: Any, engine: DecisionEngine, states: int, per_state: int, seed: int) -> Played:
    """Compare in `states` states of messy episodes; every disagreement that physics does not explain is an error."""
    rng, found, compared = np.random.default_rng(seed), Played(), 0
    for obs in beginnings(env, seed):
        done, step = False, 0
        while not done and step < 80:
            step += 1
            if step % 5 == 0:
                compared += _compare_state(env, engine, obs, per_state, rng, found)
                if compared == states:
                    return found
            obs, _, done, _ = env.step(engine.action(random_move(rng, engine.catalogue, obs, step), obs))
    raise AssertionError("scenarios have no end")


def _compare_state(env: Any, engine: DecisionEngine, obs: Any, per_state: int, rng: Any, found: Played) -> bool:
    catalogue, check = engine.catalogue, engine.check
    storage = _storage(env, rng)
    idle, dark, info = _ahead(env, _with(env.action_space(), storage))
    if dark or (info["disc_lines"] >= 0).any():  # what trips while nothing is done need not trip after an action
        return False
    assert check.load(idle)
    lin = engine._factors.linearise(GridState.from_observation(engine.model, idle))
    ids = rng.permutation(spread_ids(rng, catalogue, obs, per_substation=1, switches=2))[:per_state]
    rows = engine.screen.rows(lin, ids, engine.security.lines)
    linear, checked = engine.screen.rho(lin, rows).max(axis=1), check.sweep(ids)
    one_step = np.full(catalogue.size, -1.0, np.float32)
    tan = tangent(engine.model, lin.factors, check.point())
    engine.screen.rank_now(tan, idle.rho, 1, every=one_step)
    _count(found.met, obs, idle, storage)
    for i, action_id in enumerate(ids.tolist()):
        after, dark, info = _ahead(env, _with(engine.action((action_id,), obs), storage))
        assert not info["is_illegal"] and not info["is_ambiguous"], catalogue.describe(action_id)
        assert checked.converged[i] <= rows.usable[i]  # what the screen calls an island has no AC solution
        foreseen = checked.rho[i].max() if checked.converged[i] else ISLAND
        expected = check.topology_after(check.topo, action_id)
        if _explained(after, dark, foreseen, expected, found):
            continue
        found.ac.append(float(np.abs(checked.rho[i] - after.rho).max()))
        if idle.rho.max() < CALM and action_id:
            found.screen.append(abs(float(linear[i] - after.rho.max())))
            if 0.0 <= one_step[action_id] < UNUSABLE:
                found.newton.append(abs(float(np.sqrt(one_step[action_id]) - after.rho.max())))
    _compare_outage(env, engine, obs, idle, lin, storage, ids, rng, found)
    return True


def _compare_outage(
    env: Any, engine: DecisionEngine, obs: Any, idle: Any, lin: Any, storage: Any, ids: Any, rng: Any, found: Played
) -> None:
    """One credible line is really opened, alone and together with a substation action."""
    catalogue, model, security, check = engine.catalogue, engine.model, engine.security, engine.check
    opening = 1 + 5 * security.lines
    possible = np.flatnonzero(catalogue.legal(obs, opening) & idle.line_status[security.lines])
    if not possible.size:
        return
    o = int(rng.choice(possible))
    moves = ids[catalogue.kind[ids] == SUBSTATION][:1].tolist()
    for action_id in [0, *moves]:
        foreseen = float(security.exact(check, np.array([action_id]))[0, o])
        after, dark, info = _ahead(env, _with(engine.action((action_id, int(opening[o])), obs), storage))
        assert not info["is_illegal"] and not info["is_ambiguous"], catalogue.describe(action_id)
        expected = check.topology_after(check.topo, action_id)
        expected[[model.line_or_pos[security.lines[o]], model.line_ex_pos[security.lines[o]]]] = -1
        if _explained(after, dark, foreseen, expected, found):
            continue
        found.exact_outage.append(abs(foreseen - float(after.rho.max())))
        if action_id == 0 and idle.rho.max() < CALM and security.counted(lin)[o]:
            told = float(security.worst_now(lin)[o])
            found.linear_outage.append(abs(told - float(after.rho.max())))
            found.called_wrongly.append((told >= 1.05) != (after.rho.max() >= 1.05))


def _explained(after: Any, dark: bool, foreseen: float, expected: np.ndarray, found: Played) -> bool:
    """Whether a blackout or a tripped line ends the comparison; both must have been foreseen."""
    if dark:
        assert foreseen >= TRIPS, "a blackout that nobody foresaw"
        found.dark += 1
        return True
    assert foreseen != ISLAND, "no solution was foreseen, and there is one"
    if (after.topo_vect == expected).all():
        return False
    assert foreseen >= TRIPS and (after.topo_vect[after.topo_vect != expected] == -1).all(), "another topology"
    found.tripped += 1
    return True


def _ahead(env: Any, action: Any) -> tuple[Any, bool, dict]:
    """Observation, end and info of a step that a copy takes."""
    copy = env.copy()
    obs, _, done, info = copy.step(action)
    obs = obs.copy()
    copy.close()
    return obs, done, info


def _storage(env: Any, rng: np.random.Generator) -> np.ndarray | None:
    """[B] MW that storage units take now and then; None where there are none."""
    if not env.n_storage or not env.action_space.supports_type("set_storage"):
        return None
    power = rng.uniform(-env.storage_max_p_prod, env.storage_max_p_absorb)
    return power * (rng.random() < 0.5)


def _with(action: Any, storage: np.ndarray | None) -> Any:
    if storage is not None:
        action.storage_p = storage
    return action


def _count(met: dict[str, int], obs: Any, idle: Any, storage: np.ndarray | None) -> None:
    for name, value in (
        ("split", (obs.topo_vect == 2).any()),
        ("line out", not idle.line_status.all()),
        ("line lost in the step", (obs.line_status & ~idle.line_status).any()),
        ("storage", storage is not None and np.abs(idle.storage_power).max() > 0.1),
    ):
        met[name] = met.get(name, 0) + bool(value)
