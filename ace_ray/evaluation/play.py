"""One episode of one agent, by a plain step loop that any Grid2Op agent can be put in."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ace_ray.agents.base import OwnAgent
from ace_ray.config.grid import GridSettings
from ace_ray.evaluation.result import Episode, percentiles
from ace_ray.grid.scenarios.episode import is_blackout, is_refused, step_reward
from ace_ray.grid.scenarios.scenario import Scenario, episode_length, reset_to


class Watcher(Protocol):
    """Sees the episode go by: what saves or draws it."""

    def start(self, env: Any, agent: Any, observation: Any, length: int) -> None:
        """Called with the first observation."""

    def step(
        self, number: int, before: Any, action: Any, after: Any, reward: float, info: dict[str, Any], seconds: float
    ) -> None:
        """Called after environment step `number` (1-based); `seconds` is the agent's wall time."""


@dataclass(frozen=True)
class Played:
    """What one episode tells: its record, and the wall time of each critical decision."""

    episode: Episode
    decision_seconds: tuple[float, ...]
    blackout: bool


def play(env: Any, agent: Any, scenario: Scenario, settings: GridSettings, watchers: Sequence[Watcher] = ()) -> Played:
    """Plays `scenario` with `agent` to its end or a blackout.

    Decisions of our own agents are their critical states. An outside agent does not say which of its calls are
    decisions: there a call counts in states with max rho at or over `critical.rho_overloaded`.

    Args:
        env: made by `make_env(settings)`; reset here.
        agent: a Grid2Op agent made for it.
        scenario: what to play.
        settings: reward and predicate.
        watchers: see each step.
    """
    observation = reset_to(env, scenario)
    length = episode_length(env, scenario)
    agent.reset(observation)
    own = isinstance(agent, OwnAgent)
    earlier = len(agent.decision_seconds) if own else 0
    for watcher in watchers:
        watcher.start(env, agent, observation, length)
    reward, total, steps, acted, illegal, dead = 0.0, 0.0, 0, 0, 0, False
    timed: list[float] = []
    while steps < length and not dead:
        started = time.perf_counter()
        action = agent.act(observation, reward, False)
        seconds = time.perf_counter() - started
        if not own and float(observation.rho.max()) >= settings.critical.rho_overloaded:
            timed.append(seconds)
        after, _, done, info = env.step(action)
        steps += 1
        dead = is_blackout(done, info, steps, length, scenario.chronic)
        reward = step_reward(after, dead, settings.reward)
        total += reward
        acted += action.can_affect_something()
        illegal += refused(action, observation, after, info, dead)
        for watcher in watchers:
            watcher.step(steps, observation, action, after, reward, info, seconds)
        observation = after
    if own:
        timed = agent.decision_seconds[earlier:]
    times = percentiles(timed)
    episode = Episode(
        chronic=scenario.chronic,
        env_seed=scenario.env_seed,
        start_step=scenario.start_step,
        steps=steps - dead,
        max_steps=length,
        decisions=len(timed),
        reward=total,
        actions=acted,
        illegal_actions=illegal,
        decision_ms_p50=times["p50"],
        decision_ms_p99=times["p99"],
        maintenance=scenario.maintenance,
        perturbation=scenario.perturbation,
    )
    return Played(episode, tuple(timed), dead)


def refused(action: Any, before: Any, after: Any, info: dict[str, Any], dead: bool) -> bool:
    """True when an action was illegal, ambiguous or void: meant to change something, and changed nothing.

    Void is what asks only for what is so already, or of whose entries none took effect though nobody undid them: the
    opponent holds the lines that it attacks, protections open a line in the step that closes it, and after a blackout
    only what asked for nothing new counts.
    """
    if is_refused(info):
        return True
    if not action.can_affect_something():
        return False
    asked_bus, asked_status = action.set_bus, action.line_set_status
    moved = asked_bus != 0
    switched = asked_status != 0
    if action.as_dict().keys() - {"set_bus_vect", "set_line_status"}:
        return False  # redispatching, curtailment, changes: never without effect
    new = bool((asked_bus[moved] != before.topo_vect[moved]).any())
    new |= bool(((asked_status[switched] > 0) != before.line_status[switched]).any())
    if not new or dead:
        return not new
    took = bool((asked_bus[moved] == after.topo_vect[moved]).any())
    took |= bool(((asked_status[switched] > 0) == after.line_status[switched]).any())
    attacked, tripped = info["opponent_attack_line"], info["disc_lines"] >= 0
    undone = tripped if attacked is None else tripped | attacked
    grid = type(before)
    asked = moved[grid.line_or_pos_topo_vect] | moved[grid.line_ex_pos_topo_vect] | switched
    return not took and not bool((asked & undone).any())
