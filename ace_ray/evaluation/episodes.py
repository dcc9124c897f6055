"""Saves one episode as Grid2Op's `EpisodeData`, which its own tools read, and pictures of its decisions."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from grid2op.Episode import EpisodeData

from ace_ray.agents import registry
from ace_ray.agents.base import RuleAgent
from ace_ray.config.errors import DataError
from ace_ray.config.grid import GridSettings
from ace_ray.evaluation.figures import action_figure
from ace_ray.evaluation.play import Played, Watcher, play
from ace_ray.grid.environment import make_env
from ace_ray.grid.scenario import Scenario


def save_episode(
    agent: str,
    scenario: Scenario,
    settings: GridSettings,
    folder: str | os.PathLike[str],
    *,
    figure: str | os.PathLike[str] | None = None,
    figure_step: int | None = None,
) -> Played:
    """Plays one episode and writes it to `folder/<chronic>_seed<seed>_start<step>/`.

    Read it with `EpisodeData.from_disk(folder, name)`. Its rewards are those of the settings (load/production - 0.9).

    Args:
        agent: see `ace_ray.agents.registry.make`.
        scenario: what is played.
        settings: of the grid.
        folder: made where missing.
        figure: where a picture (PNG) of the grid before and after one action is written, if anywhere.
        figure_step: the environment step (0: the first) whose action is drawn; None: that of the first decision
            that did something.

    Raises:
        DataError: `folder` holds this episode already, or a figure was asked for and there is no such action.
    """
    env = make_env(settings)
    recorder = EpisodeRecorder(folder, scenario)
    watchers = _Both(recorder, _Painter(figure, figure_step) if figure is not None else None)
    try:
        played = play(env, registry.make(agent, env, settings), scenario, settings, watchers)
        recorder.finish(played)
        if watchers.painter is not None and not watchers.painter.drawn:
            wanted = "a decision that acts" if figure_step is None else f"an environment step {figure_step}"
            raise DataError(f"the episode has no {wanted}, so no figure was written", "choose another step or scenario")
        return played
    finally:
        env.close()


class EpisodeRecorder:
    """A watcher of `play` that fills an `EpisodeData` as Grid2Op's Runner does.

    Args:
        folder: agent folder in the sense of `EpisodeData`.
        scenario: names the episode.
    """

    def __init__(self, folder: str | os.PathLike[str], scenario: Scenario) -> None:
        self.folder = Path(folder)
        self.name = f"{scenario.chronic}_seed{scenario.env_seed}_start{scenario.start_step}"
        self.scenario = scenario
        if (self.folder / self.name).exists():
            raise DataError(f"{self.folder / self.name} exists already", "choose another folder, or remove it")
        self._acting = 0.0

    def start(self, env: Any, agent: Any, observation: Any, length: int) -> None:
        """Makes room for the whole episode."""
        self.folder.mkdir(parents=True, exist_ok=True)

        def rows(count: int, width: int) -> np.ndarray:
            return np.full((count, width), np.nan, dtype=np.float32)

        observations = rows(length + 1, env.observation_space.n)
        observations[0] = observation.to_vect()
        attack_width = env._opponent_action_space.n
        self.env = env
        self.data = EpisodeData(
            actions=rows(length, env.action_space.n),
            env_actions=rows(length, env._helper_action_env.n),
            observations=observations,
            rewards=np.full(length, np.nan, dtype=np.float32),
            disc_lines=np.zeros((length, env.n_line), dtype=bool),
            times=np.full(length, np.nan, dtype=np.float32),
            observation_space=env.observation_space,
            action_space=env.action_space,
            helper_action_env=env._helper_action_env,
            path_save=str(self.folder),
            disc_lines_templ=np.zeros((1, env.n_line), dtype=bool),
            attack_templ=np.zeros((1, attack_width), dtype=np.float32),
            attack=np.zeros((length, attack_width), dtype=np.float32),
            attack_space=env._opponent_action_space,
            logger=logging.getLogger(__name__),
            name=self.name,
            other_rewards=[],
            legal=np.ones(length, dtype=bool),
            ambiguous=np.zeros(length, dtype=bool),
            has_legal_ambiguous=True,
        )
        self.data.observations.objects[0] = self.data.observations.helper.from_vect(observations[0])
        self.data.set_parameters(env)
        self._began = time.perf_counter()

    def step(
        self, number: int, before: Any, action: Any, after: Any, reward: float, info: dict[str, Any], seconds: float
    ) -> None:
        """Stores one step."""
        self._acting += seconds
        env = self.env
        attack = env._oppSpace.last_attack
        self.data.incr_store(True, number, seconds, reward, env._env_modification, action, after, attack, info)

    def finish(self, played: Played) -> None:
        """Writes the episode."""
        steps = played.episode.steps + played.blackout
        self.data.set_game_over(steps)
        self.data.set_meta(self.env, steps, played.episode.reward, self.scenario.env_seed, None)
        self.data.meta["chronics_max_timestep"] = str(played.episode.max_steps)  # Grid2Op forgets the start step
        self.data.set_episode_times(self.env, self._acting, self._began, time.perf_counter())
        self.data.to_disk()


class _Painter:
    """Draws the grid before and after one action."""

    def __init__(self, path: str | os.PathLike[str], step: int | None) -> None:
        self.path, self.wanted, self.drawn = path, step, False

    def start(self, env: Any, agent: Any, observation: Any, length: int) -> None:
        self.env, self.agent = env, agent
        self.decisions = 0

    def step(
        self, number: int, before: Any, action: Any, after: Any, reward: float, info: dict[str, Any], seconds: float
    ) -> None:
        decided = isinstance(self.agent, RuleAgent) and self.agent.decisions > self.decisions
        self.decisions = getattr(self.agent, "decisions", 0)
        chosen = number - 1 == self.wanted if self.wanted is not None else decided and action.can_affect_something()
        if not chosen or self.drawn:
            return
        words = []
        if isinstance(self.agent, RuleAgent):
            catalogue = self.agent.engine.catalogue
            words = [catalogue.describe(i) for i in self.agent.last_ids if i > 0]
        action_figure(self.env.grid_layout, before, action, after, self.path, described=words)
        self.drawn = True


class _Both:
    """Two watchers as one."""

    def __init__(self, recorder: EpisodeRecorder, painter: _Painter | None) -> None:
        self.painter = painter
        self._each: list[Watcher] = [recorder] if painter is None else [recorder, painter]

    def start(self, env: Any, agent: Any, observation: Any, length: int) -> None:
        for one in self._each:
            one.start(env, agent, observation, length)

    def step(self, *step: Any) -> None:
        for one in self._each:
            one.step(*step)
