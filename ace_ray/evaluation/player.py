"""What one process needs to play: environments and agents, made once and used again; and the jobs that it plays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ace_ray.agents import registry
from ace_ray.agents.base import OwnAgent
from ace_ray.agents.greedy import DoNothing
from ace_ray.config.grid import GridSettings
from ace_ray.evaluation.episodes import EpisodeRecorder, Painter
from ace_ray.evaluation.play import Played, Watcher, play
from ace_ray.evaluation.scores import CostMeter, Costs, ScoreStatistics, reconnecting_env, score_statistics
from ace_ray.grid.engine import DecisionEngine
from ace_ray.grid.scenarios.environment import make_env
from ace_ray.grid.scenarios.scenario import Scenario

Made = TypeVar("Made")


class Playable(Protocol):
    """A job: plain data that a process can be sent, and that it plays."""

    def play(self, player: Player) -> Any:
        """Returns the result, plain data as well."""


class Player:
    """Environments and agents of one process."""

    def __init__(self) -> None:
        self._made: dict[tuple[object, ...], Any] = {}

    def env(self, settings: GridSettings) -> Any:
        """The environment of these settings."""
        return self._once(("env", settings.model_dump_json()), lambda: make_env(settings))

    def reconnecting_env(self, settings: GridSettings) -> Any:
        """The environment of the second score statistic (see `scores.score_statistics`)."""
        return self._once(("reconnecting", settings.model_dump_json()), lambda: reconnecting_env(settings))

    def agent(self, spec: registry.AgentSpec, settings: GridSettings) -> Any:
        """The agent `spec` in that environment."""

        def make() -> Any:
            env = self.env(settings)
            observation = env.reset()  # after a blackout an environment has no grid that an engine could be made from
            agent = registry.make(spec, env, settings)
            if isinstance(agent, OwnAgent) and not isinstance(agent, DoNothing):
                _warm_up(agent.engine, observation)
            return agent

        return self._once(("agent", spec, settings.model_dump_json()), make)

    def _once(self, key: tuple[object, ...], make: Callable[[], Made]) -> Made:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


def _warm_up(engine: DecisionEngine, observation: Any) -> None:
    """Loads compiled code, which is no part of the time of a decision: one of either kind, one line at its limit."""
    engine.decide(observation)
    pressed = observation.copy()
    pressed.rho[0] = engine.settings.critical.rho_overloaded
    engine.decide(pressed)


@dataclass(frozen=True)
class JobResult:
    """What an episode job returns.

    Attributes:
        played: the episode.
        costs: of its steps, where they were asked for.
        drawn: whether the figure was drawn, None where none was asked for.
    """

    played: Played
    costs: Costs | None
    drawn: bool | None


@dataclass(frozen=True)
class EpisodeJob:
    """One agent on one scenario.

    Attributes:
        agent: see `ace_ray.agents.registry.make`.
        settings: of the grid.
        scenario: what is played.
        costs: whether the operational costs that the L2RPN scores are made of are recorded.
        record: folder that gets the episode as Grid2Op's `EpisodeData`.
        figure: PNG of the grid before and after one action.
        figure_step: which (see `Painter`).
    """

    agent: registry.AgentSpec
    settings: GridSettings
    scenario: Scenario
    costs: bool = False
    record: Path | None = None
    figure: Path | None = None
    figure_step: int | None = None

    def play(self, player: Player) -> JobResult:
        """Plays it."""
        meter = CostMeter() if self.costs else None
        recorder = EpisodeRecorder(self.record, self.scenario) if self.record else None
        painter = Painter(self.figure, self.figure_step) if self.figure else None
        watchers: list[Watcher] = [watcher for watcher in (meter, recorder, painter) if watcher is not None]
        env, agent = player.env(self.settings), player.agent(self.agent, self.settings)
        played = play(env, agent, self.scenario, self.settings, watchers)
        if recorder is not None:
            recorder.finish(played)
        return JobResult(played, meter.costs if meter else None, painter.drawn if painter else None)


@dataclass(frozen=True)
class StatisticsJob:
    """The score statistics of one scenario."""

    settings: GridSettings
    scenario: Scenario

    def play(self, player: Player) -> ScoreStatistics:
        """Plays the two episodes that the scores are measured against."""
        return score_statistics(
            player.env(self.settings), player.reconnecting_env(self.settings), self.scenario, self.settings
        )
