"""The scores of the L2RPN competitions of 2020 and 2022, for any scenario, as Grid2Op's stock classes compute them.

A score maps the operational cost of an episode piecewise linearly to 100 (0.8 times the losses), 80 (reconnection with
no overload disconnected), 0 (do nothing) and -100 (blackout at once): Grid2Op, `grid2op/utils/l2rpn_2020_scores.py`
(`ScoreL2RPN2020`) and `l2rpn_wcci_2022_scores.py` (`ScoreL2RPN2022`: another cost of storage).

The stock classes play the first N chronics of an environment, one seed each, and keep their statistics inside the
environment's folder under one name, whatever the seeds and the class of the score were. Here the statistics are one
small file a scenario in a folder that the caller names, the costs are those of the very episode that is reported, and
the stock class runs its formula on them.

Known quirk, kept so that numbers stay comparable: the stock formula takes the losses from the load where production is
meant, so they are always 0. The 100-point anchor is then a cost of nothing at all, and scores end near 80.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zipfile import BadZipFile

import numpy as np
from grid2op.Agent import BaseAgent, DoNothingAgent, RecoPowerlineAgent
from grid2op.Reward import L2RPNSandBoxScore, L2RPNWCCI2022ScoreFun
from grid2op.utils import ScoreL2RPN2020

from ace_ray.config.errors import DataError
from ace_ray.config.files import replacing
from ace_ray.config.grid import GridSettings
from ace_ray.evaluation.play import play
from ace_ray.grid.scenarios.environment import make_env
from ace_ray.grid.scenarios.scenario import Scenario

# Cost functions of the two scores; their classes differ in nothing else.
COSTS = {"score_2020": L2RPNSandBoxScore, "score_2022": L2RPNWCCI2022ScoreFun}
QUIRK = (
    "L2RPN scores are those of Grid2Op's ScoreL2RPN2020 and ScoreL2RPN2022: 0 is do-nothing, 80 reconnection without "
    "overload trips, -100 a blackout at once. Grid2Op's formula takes the losses as 0, so 100 would be an episode "
    "without any cost and good agents end near 80."
)
MIN_LOSSES_RATIO = 0.8  # default of the stock classes
Costs = Mapping[str, np.ndarray]  # name of a score -> cost of each environment step, float32 [steps]


class CostMeter:
    """A watcher of `play` that records the operational cost and the load of each step.

    Attributes:
        costs: score -> float32 `[steps]`, the step of a blackout included.
        load: float32 `[steps + 1]`, sum of the loads (MW) in each observation, the first one included.
    """

    def __init__(self) -> None:
        self._costs: dict[str, list[np.float32]] = {}
        self._load: list[np.float32] = []

    @property
    def costs(self) -> Costs:
        return {name: np.asarray(values, dtype=np.float32) for name, values in self._costs.items()}

    @property
    def load(self) -> np.ndarray:
        return np.asarray(self._load, dtype=np.float32)

    def start(self, env: Any, agent: Any, observation: Any, length: int) -> None:
        self._env = env
        self._functions = {name: function() for name, function in COSTS.items()}
        for function in self._functions.values():
            function.initialize(env)
        self._costs = {name: [] for name in COSTS}
        self._load = [observation.load_p.sum()]

    def step(
        self, number: int, before: Any, action: Any, after: Any, reward: float, info: dict[str, Any], seconds: float
    ) -> None:
        # A step that ends in an error costs the function's least; the stock formula leaves the last step out anyway.
        for name, function in self._functions.items():
            self._costs[name].append(function(action, self._env, bool(self._env.done), self._env.done, False, False))
        self._load.append(after.load_p.sum())


@dataclass(frozen=True)
class ScoreStatistics:
    """What the scores of one scenario are measured against.

    Attributes:
        nothing: costs of the do-nothing agent, `[steps]` each.
        reconnecting: those of Grid2Op's `RecoPowerlineAgent` where no overload is disconnected.
        load: sum of the loads in each observation of the latter, MW, `[steps + 1]`.
        dearest: highest cost of a generator, a MWh.
    """

    nothing: Costs
    reconnecting: Costs
    load: np.ndarray
    dearest: float

    def save(self, path: Path) -> None:
        """Writes `path` (npz), whole or not at all."""
        arrays = {f"nothing_{name}": values for name, values in self.nothing.items()}
        arrays |= {f"reconnecting_{name}": values for name, values in self.reconnecting.items()}
        with replacing(path, parents=True) as unfinished, open(unfinished, "wb") as stream:
            np.savez_compressed(stream, allow_pickle=False, load=self.load, dearest=self.dearest, **arrays)

    @classmethod
    def load_from(cls, path: Path) -> ScoreStatistics:
        """The inverse of `save`.

        Raises:
            DataError: torn, or something else.
        """
        try:
            with np.load(path) as found:
                return cls(
                    {name: found[f"nothing_{name}"] for name in COSTS},
                    {name: found[f"reconnecting_{name}"] for name in COSTS},
                    found["load"],
                    float(found["dearest"]),
                )
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise DataError(
                f"{path} has no score statistics: {error!r}", "remove the file; it will be made again"
            ) from error

    def score(self, name: str, costs: np.ndarray) -> float:
        """The score of an episode by the stock formula.

        Args:
            name: `score_2020` or `score_2022`.
            costs: of its steps under that score, `[steps]`.
        """
        stock = _Stock(self, name)
        found, _, _ = stock._compute_episode_score(
            0,
            meta={"nb_timestep_played": len(costs)},
            other_rewards=[{"_scores": cost} for cost in costs],
            dn_metadata={"0": {"nb_step": len(self.nothing[name]) + 1}, "max_step": -1},
            no_ov_metadata={"0": {"nb_step": len(self.load)}},
        )
        return float(found)


def statistics_file(folder: str | os.PathLike[str], scenario: Scenario) -> Path:
    """Where the statistics of a scenario are kept; other versions of the simulator have other files."""
    versions = [importlib.metadata.version(package) for package in ("grid2op", "lightsim2grid")]
    digest = hashlib.sha256("|".join([scenario.key(), *versions]).encode()).hexdigest()[:12]
    return Path(folder) / f"{scenario.chronic}_seed{scenario.env_seed}_start{scenario.start_step}_{digest}.npz"


def check_costs(env: Any, settings: GridSettings) -> None:
    """Raises DataError for an environment without generator costs, for which the scores are not defined."""
    if not env.redispatching_unit_commitment_availble:
        raise DataError(
            f"environment '{settings.env}' has no generator costs, which the L2RPN scores are made of",
            "leave the scores out (--scores, evaluation.scores)",
        )


def reconnecting_env(settings: GridSettings) -> Any:
    """The environment with its own reward, which RecoPowerlineAgent follows, and with no overload disconnected."""
    env = make_env(settings, own_reward=True)
    parameters = deepcopy(env.parameters)
    parameters.NO_OVERFLOW_DISCONNECTION = True
    env.change_parameters(parameters)
    env.change_forecast_parameters(parameters)
    env.reset()  # they hold from here on
    return env


def score_statistics(env: Any, reconnecting: Any, scenario: Scenario, settings: GridSettings) -> ScoreStatistics:
    """Plays the two episodes that the scores of a scenario are measured against.

    Args:
        env: from `make_env(settings)`.
        reconnecting: from `reconnecting_env(settings)`.
        scenario, settings: what is played.
    """
    nothing = _metered(env, DoNothingAgent(env.action_space), scenario, settings)
    best = _metered(reconnecting, RecoPowerlineAgent(reconnecting.action_space), scenario, settings)
    return ScoreStatistics(nothing.costs, best.costs, best.load, float(np.max(env.gen_cost_per_MW)))


def _metered(env: Any, agent: BaseAgent, scenario: Scenario, settings: GridSettings) -> CostMeter:
    meter = CostMeter()
    play(env, agent, scenario, settings, [meter])
    return meter


class _Stock(ScoreL2RPN2020):
    """The stock class, whose formula reads statistics from here instead of the environment's folder."""

    def __init__(self, statistics: ScoreStatistics, name: str) -> None:
        self.env = SimpleNamespace(gen_cost_per_MW=np.array([statistics.dearest], dtype=np.float32))
        self.min_losses_ratio = MIN_LOSSES_RATIO
        self.max_step = -1
        self.stat_dn = _Series(statistics.nothing[name], statistics.load)
        self.stat_no_overflow_rp = _Series(statistics.reconnecting[name], statistics.load)


@dataclass(frozen=True)
class _Series:
    """Stands for `EpisodeStatistics` of one episode."""

    costs: np.ndarray
    load: np.ndarray

    def get(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Values `[rows, width]` and the episode (0) of each row."""
        found = self.load[:, None] if name == "load_p" else self.costs
        return found, np.zeros((len(found), 1), dtype=int)
