"""Saves episodes as Grid2Op's `EpisodeData`, which its own tools read, and pictures of their decisions."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from grid2op.Episode import EpisodeData

from ace_ray.agents.base import OwnAgent
from ace_ray.config.errors import DataError
from ace_ray.evaluation.figures import action_figure
from ace_ray.evaluation.play import Played
from ace_ray.evaluation.result import plain_name
from ace_ray.grid import grid2op_internals as internals
from ace_ray.grid.scenarios.scenario import Scenario


def episode_folder(folder: str | os.PathLike[str], agent: str) -> Path:
    """The folder of an agent's episodes: one a name, as grid2viz and `EpisodeData.list_episode` expect it."""
    return Path(folder) / plain_name(agent)


def episode_name(scenario: Scenario) -> str:
    """The name of a saved episode; whole, capped and varied ones of one chronic do not share a folder."""
    cap = "" if scenario.max_steps is None else f"_steps{scenario.max_steps}"
    varied = f"_maintenance{scenario.maintenance:g}" * bool(scenario.maintenance)
    varied += f"_perturbation{scenario.perturbation:g}" * bool(scenario.perturbation)
    return f"{scenario.chronic}_seed{scenario.env_seed}_start{scenario.start_step}{cap}{varied}"


class EpisodeRecorder:
    """A watcher of `play` that fills an `EpisodeData` as Grid2Op's Runner does.

    Read the episode with `EpisodeData.from_disk(folder, name)`. Its rewards are those of the settings.

    Args:
        folder: agent folder in the sense of `EpisodeData`; made where missing.
        scenario: names the episode (`episode_name`).

    Raises:
        DataError: `folder` holds this episode already.
    """

    def __init__(self, folder: str | os.PathLike[str], scenario: Scenario) -> None:
        self.folder = Path(folder)
        self.name = episode_name(scenario)
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
        attack_width = internals.opponent_action_space(env).n
        self.env = env
        self.data = EpisodeData(
            actions=rows(length, env.action_space.n),
            env_actions=rows(length, internals.environment_action_space(env).n),
            observations=observations,
            rewards=np.full(length, np.nan, dtype=np.float32),
            disc_lines=np.zeros((length, env.n_line), dtype=bool),
            times=np.full(length, np.nan, dtype=np.float32),
            observation_space=env.observation_space,
            action_space=env.action_space,
            helper_action_env=internals.environment_action_space(env),
            path_save=str(self.folder),
            disc_lines_templ=np.zeros((1, env.n_line), dtype=bool),
            attack_templ=np.zeros((1, attack_width), dtype=np.float32),
            attack=np.zeros((length, attack_width), dtype=np.float32),
            attack_space=internals.opponent_action_space(env),
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
        attack, changed = internals.last_attack(env), internals.environment_action(env)
        self.data.incr_store(True, number, seconds, reward, changed, action, after, attack, info)

    def finish(self, played: Played) -> None:
        """Writes the episode."""
        steps = played.episode.steps + played.blackout
        self.data.set_game_over(steps)
        self.data.set_meta(self.env, steps, played.episode.reward, self.scenario.env_seed, None)
        self.data.meta["chronics_max_timestep"] = str(played.episode.max_steps)  # Grid2Op forgets the start step
        self.data.set_episode_times(self.env, self._acting, self._began, time.perf_counter())
        self.data.to_disk()


class Painter:
    """A watcher of `play` that draws the grid before and after one action.

    Args:
        path: PNG to write.
        step: the environment step (0: the first) whose action is drawn; None: that of the first decision that did
            something.

    Attributes:
        drawn: whether there was such an action.
    """

    def __init__(self, path: str | os.PathLike[str], step: int | None) -> None:
        self.path, self.wanted, self.drawn = path, step, False

    def start(self, env: Any, agent: Any, observation: Any, length: int) -> None:
        self.env, self.agent = env, agent
        self.decisions = 0

    def step(
        self, number: int, before: Any, action: Any, after: Any, reward: float, info: dict[str, Any], seconds: float
    ) -> None:
        decided = isinstance(self.agent, OwnAgent) and self.agent.decisions > self.decisions
        self.decisions = getattr(self.agent, "decisions", 0)
        chosen = number - 1 == self.wanted if self.wanted is not None else decided and action.can_affect_something()
        if not chosen or self.drawn:
            return
        words = []
        if isinstance(self.agent, OwnAgent):
            catalogue = self.agent.engine.catalogue
            words = [catalogue.describe(i) for i in self.agent.last_ids if i > 0]
        action_figure(self.env.grid_layout, before, action, after, self.path, described=words)
        self.drawn = True
