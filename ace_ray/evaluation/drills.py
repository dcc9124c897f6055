"""Drills, played: the job that a worker is sent, and what became of each drill, in memory and as Parquet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from ace_ray.agents import registry
from ace_ray.config.errors import DataError
from ace_ray.config.files import replacing
from ace_ray.config.grid import CriticalSettings, GridSettings
from ace_ray.evaluation.play import play
from ace_ray.evaluation.player import Player
from ace_ray.evaluation.pool import Pool
from ace_ray.grid.risk import SOFT_RHO
from ace_ray.grid.scenarios.drills import Drill, drilled


@dataclass(frozen=True)
class DrillRow:
    """What became of one drill of one agent.

    Attributes:
        agent: name, with its predicate where that is not the usual one.
        family, chronic, env_seed, start_step, warm_up, line, outage, max_steps: the drill (`drills.Drill`).
        month, hour: on the grid's clock, when the line goes out.
        survived: the grid was there to the drill's last step.
        death: environment steps from the step in which the line goes out to the blackout (0: the same step; negative:
            before it); None where it survived.
        stress: sum over lines of the rho above 0.97 right after the line went out; None where the grid was black by
            then.
        steps: environment steps survived, warm-up included.
        reward: sum of step rewards.
        decisions, actions, illegal_actions: as of an episode (`result.Episode`).
    """

    agent: str
    family: str
    chronic: str
    env_seed: int
    start_step: int
    warm_up: int
    line: int
    outage: int
    max_steps: int
    month: int
    hour: int
    survived: bool
    death: int | None
    stress: float | None
    steps: int
    reward: float
    decisions: int
    actions: int
    illegal_actions: int

    @property
    def drill(self) -> tuple[object, ...]:
        """What the same drill of another agent shares: the values of `identity`."""
        return tuple(getattr(self, name) for name in IDENTITY)


IDENTITY = ("family", "chronic", "env_seed", "start_step", "warm_up", "line", "outage", "max_steps")


def identity(drill: Drill) -> dict[str, Any]:
    """The columns that say which drill it is, in the order of IDENTITY."""
    known = {**asdict(drill.scenario), **asdict(drill)}
    return {name: known[name] for name in IDENTITY}


SCHEMA = pa.schema(
    [
        pa.field("agent", pa.string(), nullable=False),
        pa.field("family", pa.string(), nullable=False),
        pa.field("chronic", pa.string(), nullable=False),
        pa.field("env_seed", pa.int64(), nullable=False),
        pa.field("start_step", pa.int32(), nullable=False),
        pa.field("warm_up", pa.int32(), nullable=False),
        pa.field("line", pa.int32(), nullable=False),
        pa.field("outage", pa.int32(), nullable=False),
        pa.field("max_steps", pa.int32(), nullable=False),
        pa.field("month", pa.int32(), nullable=False),
        pa.field("hour", pa.int32(), nullable=False),
        pa.field("survived", pa.bool_(), nullable=False),
        pa.field("death", pa.int32()),
        pa.field("stress", pa.float64()),
        pa.field("steps", pa.int32(), nullable=False),
        pa.field("reward", pa.float64(), nullable=False),
        pa.field("decisions", pa.int32(), nullable=False),
        pa.field("actions", pa.int32(), nullable=False),
        pa.field("illegal_actions", pa.int32(), nullable=False),
    ]
)


def write_rows(rows: Sequence[DrillRow], path: str | os.PathLike[str]) -> None:
    """Writes rows as Parquet, through a temporary file."""
    with replacing(Path(path), parents=True) as unfinished:
        pq.write_table(pa.Table.from_pylist([asdict(row) for row in rows], SCHEMA), unfinished, compression="zstd")


def read_rows(path: str | os.PathLike[str]) -> list[DrillRow]:
    """Reads what `write_rows` wrote.

    Raises:
        DataError: it is something else.
    """
    try:
        return [DrillRow(**row) for row in pq.read_table(path, schema=SCHEMA).to_pylist()]
    except (OSError, TypeError, ValueError, pa.ArrowException) as error:
        raise DataError(
            f"{path} holds no played drills: {error}", "name a file that ace bench drills --output wrote"
        ) from error


class _Loss:
    """Notes when the line goes out, and how loaded the grid is then (a `play.Watcher`)."""

    def __init__(self, drill: Drill) -> None:
        self._lost = drill.warm_up + 1
        self.month, self.hour = 0, 0
        self.stress: float | None = None

    def start(self, env: Any, agent: Any, observation: Any, length: int) -> None:
        then = observation.get_time_stamp() + timedelta(minutes=float(observation.delta_time)) * self._lost
        self.month, self.hour = then.month, then.hour

    def step(
        self, number: int, before: Any, action: Any, after: Any, reward: float, info: dict[str, Any], seconds: float
    ) -> None:
        if number == self._lost and after.line_status.any():  # a black grid has none in service
            self.stress = float(np.maximum(after.rho - SOFT_RHO, 0.0).sum())


@dataclass(frozen=True)
class DrillJob:
    """One agent in one drill.

    Attributes:
        agent: see `ace_ray.agents.registry.make`.
        settings: of the grid.
        drill: what is played.
    """

    agent: registry.AgentSpec
    settings: GridSettings
    drill: Drill

    def play(self, player: Player) -> DrillRow:
        """Plays it."""
        drill, scenario = self.drill, self.drill.scenario
        env, agent = player.env(self.settings), player.agent(self.agent, self.settings)
        loss = _Loss(drill)
        with drilled(env, drill):
            played = play(env, agent, scenario, self.settings, [loss])
        episode = played.episode
        return DrillRow(
            agent=label(self.agent, self.settings),
            **identity(drill),
            month=loss.month,
            hour=loss.hour,
            survived=not played.blackout,
            death=episode.steps - drill.warm_up if played.blackout else None,
            stress=loss.stress,
            steps=episode.steps,
            reward=episode.reward,
            decisions=episode.decisions,
            actions=episode.actions,
            illegal_actions=episode.illegal_actions,
        )


def label(agent: registry.AgentSpec, settings: GridSettings) -> str:
    """The agent, and its predicate where that is not the usual one."""
    predicate = settings.critical.predicate
    return str(agent) if predicate == CriticalSettings().predicate else f"{agent} ({predicate})"


def play_drills(
    agents: Sequence[registry.AgentSpec],
    settings: Sequence[GridSettings],
    drills: Sequence[Drill],
    *,
    processes: int,
    progress: bool = True,
) -> dict[str, tuple[DrillRow, ...]]:
    """Plays every drill with every agent over one pool of workers.

    Args:
        agents: see `ace_ray.agents.registry.make`.
        settings: of the grid, one an agent.
        drills: what is played.
        processes: workers; 1 plays in this process.
        progress: shows a progress bar on stderr.

    Returns:
        By label of the agent its rows, in the order of the drills, whatever the number of workers.
    """
    jobs = [DrillJob(agent, grid, drill) for drill in drills for agent, grid in zip(agents, settings, strict=True)]
    rows: list[Any] = [None] * len(jobs)
    with Pool(processes) as pool, tqdm(total=len(jobs), desc="drills", unit="drill", disable=not progress) as bar:
        for index, row in pool.run(jobs):
            rows[index] = row
            bar.update()
    names = [label(agent, grid) for agent, grid in zip(agents, settings, strict=True)]
    return {name: tuple(rows[i :: len(agents)]) for i, name in enumerate(names)}
