"""The result of an evaluation, and its JSON form (`ace evaluate --json`).

The keys are stable; docs/json.md lists them. Units: survival is a share (0 to 1), reward a sum of step rewards,
decision_ms milliseconds (null without any decision), steps and max_steps environment steps.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError

from ace_ray.config.errors import DataError
from ace_ray.config.files import write_json
from ace_ray.monitoring.statistics import Interval, interval

SCORES = ("score_2020", "score_2022")
WRITE = "write it with `ace evaluate … --json FILE`"
# How a result is read: no conversion of types, no unknown field, no NaN.
STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
DERIVED = ("survival", "reward", "full_episodes", "illegal_actions", "actions", "scores", "intervals")


@dataclass(frozen=True)
class Episode:
    """One episode of one agent.

    Attributes:
        chronic, env_seed, start_step: which scenario (with the data set of the evaluation).
        steps: environment steps survived; equal to `max_steps` exactly when the episode was played in full.
        max_steps: steps that the scenario holds.
        decisions: critical decisions (outside agents: steps with max rho over the predicate's limit).
        reward: sum of step rewards.
        actions: steps whose action was meant to change something.
        illegal_actions: those of them that were illegal, ambiguous, or changed nothing.
        decision_ms_p50, decision_ms_p99: wall time of its critical decisions in ms, None without any; no part of what
            makes two episodes equal.
        score_2020, score_2022: L2RPN scores (see `scores`), None where they were not asked for.
        maintenance, perturbation: how the scenario varies its chronic (see `Scenario`), 0 where it does not.
    """

    chronic: str
    env_seed: int
    start_step: int
    steps: int
    max_steps: int
    decisions: int
    reward: float
    actions: int
    illegal_actions: int
    decision_ms_p50: float | None = field(default=None, compare=False)
    decision_ms_p99: float | None = field(default=None, compare=False)
    score_2020: float | None = None
    score_2022: float | None = None
    maintenance: float = 0.0
    perturbation: float = 0.0

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if not 0 <= self.steps <= self.max_steps or self.max_steps < 1:
            raise ValueError(f"steps is {self.steps}, and must be from 0 to max_steps, {self.max_steps}")

    @property
    def scenario(self) -> tuple[str, int, int, int, float, float]:
        """What has to be equal for two episodes to be a pair."""
        return self.chronic, self.env_seed, self.start_step, self.max_steps, self.maintenance, self.perturbation

    @property
    def survival(self) -> float:
        """Share of the scenario's steps survived."""
        return self.steps / self.max_steps


@dataclass(frozen=True)
class Evaluation:
    """An agent on a set of scenarios.

    Attributes:
        agent, env, predicate, data, split, scenarios: what was evaluated; `scenarios` as it was asked for.
        in_sample: True when the training of the agent has seen these injections, or may have.
        episodes: in the order of the scenario set.
        decision_ms: wall time of critical decisions in ms, percentiles `p50` and `p99`, None without any decision.
        catalogue: hash of the action catalogue. settings: of the grid. versions: of the packages that matter.
    """

    agent: str
    env: str
    predicate: str
    data: str
    split: str
    scenarios: str
    in_sample: bool
    episodes: tuple[Episode, ...]
    decision_ms: Mapping[str, float | None]
    catalogue: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if not self.episodes:
            raise ValueError("episodes is empty")

    @property
    def chronics(self) -> list[str]:
        """The chronic of each episode."""
        return [episode.chronic for episode in self.episodes]

    @property
    def survival(self) -> Interval:
        """Mean survival with its interval."""
        return interval([episode.survival for episode in self.episodes], self.chronics)

    @property
    def reward(self) -> float:
        """Mean reward an episode."""
        return float(np.mean([episode.reward for episode in self.episodes]))

    @property
    def full_episodes(self) -> int:
        """Episodes that were survived to their end."""
        return sum(episode.steps == episode.max_steps for episode in self.episodes)

    @property
    def actions(self) -> float:
        """Mean number of acting steps an episode."""
        return float(np.mean([episode.actions for episode in self.episodes]))

    @property
    def illegal_actions(self) -> int:
        """Illegal, ambiguous or void actions of all episodes."""
        return sum(episode.illegal_actions for episode in self.episodes)

    @property
    def scores(self) -> dict[str, Interval] | None:
        """Mean L2RPN scores with their intervals, None where they were not asked for."""
        found: dict[str, Interval] = {}
        for name in SCORES:
            values = [value for episode in self.episodes if (value := getattr(episode, name)) is not None]
            if len(values) < len(self.episodes):
                return None
            found[name] = interval(values, self.chronics)
        return found

    def to_json(self) -> dict[str, Any]:
        """The documented form."""
        survival, scores = self.survival, self.scores
        return {
            "agent": self.agent,
            "env": self.env,
            "predicate": self.predicate,
            "survival": {"mean": survival.mean, "ci95": survival.ci95},
            "reward": {"mean": self.reward},
            "full_episodes": self.full_episodes,
            "episodes": [asdict(episode) for episode in self.episodes],
            "decision_ms": dict(self.decision_ms),
            "illegal_actions": self.illegal_actions,
            "actions": {"mean": self.actions},
            "scores": scores and {name: {"mean": one.mean, "ci95": one.ci95} for name, one in scores.items()},
            "data": self.data,
            "split": self.split,
            "scenarios": self.scenarios,
            "in_sample": self.in_sample,
            "intervals": survival.over,
            "catalogue": self.catalogue,
            "settings": dict(self.settings),
            "versions": dict(self.versions),
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Evaluation:
        """The inverse of `to_json`; what follows from the episodes is computed anew.

        Raises:
            ValidationError: a field is missing, unknown, or of another type.
        """
        stored = {key: value for key, value in row.items() if key not in DERIVED}
        return _EVALUATION.validate_json(json.dumps(stored))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the JSON form, whole or not at all.

        Raises:
            RunFolderError: disk full, or not writable.
        """
        write_json(Path(path), self.to_json(), parents=True)


_EVALUATION = TypeAdapter(Evaluation)


def load(path: str | os.PathLike[str]) -> Evaluation:
    """Reads what `Evaluation.save` wrote.

    Raises:
        DataError: missing, or not the result of one evaluation.
    """
    found = load_all(path)
    if len(found) > 1:
        raise DataError(f"{path} holds the results of {len(found)} agents", "name the result of one")
    return found[0]


def load_all(path: str | os.PathLike[str]) -> list[Evaluation]:
    """Reads the results in a file: one, or those of a table of agents (`ace evaluate` with several, `table.json`).

    Raises:
        DataError: missing, not the result of an evaluation, or one of a newer version.
    """
    try:
        row = json.loads(Path(path).read_text(encoding="utf-8"))
        if not isinstance(row, dict):
            raise DataError(f"{path} is not the result of an evaluation: it is not a JSON object", WRITE)
        return [Evaluation.from_json(one) for one in row["agents"]] if "agents" in row else [Evaluation.from_json(row)]
    except FileNotFoundError:
        raise DataError(f"{path} does not exist", WRITE) from None
    except ValidationError as error:
        raise _told(path, error) from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not the result of an evaluation: {error}", WRITE) from error


def _told(path: str | os.PathLike[str], error: ValidationError) -> DataError:
    """What is wrong with a result. One that has all fields and some more was written by a newer version."""
    unknown = [one for one in error.errors() if one["type"] == "unexpected_keyword_argument"]
    problems = [one for one in error.errors() if one not in unknown]
    if unknown and not problems:
        field_name = str(unknown[0]["loc"][-1])
        return DataError(
            f"{path} was written by a newer version: this one does not know its field '{field_name}'",
            "update ace-ray, or evaluate again with this version",
        )
    where = ".".join(str(part) for part in problems[0]["loc"])
    return DataError(f"{path} is not the result of an evaluation: {where and where + ': '}{problems[0]['msg']}", WRITE)


def plain_name(name: str) -> str:
    """An agent's or environment's name as that of a file."""
    return re.sub(r"[^\w.+@-]+", "_", name).strip("_")


def percentiles(seconds: Sequence[float]) -> dict[str, float | None]:
    """`p50` and `p99` in milliseconds; None for no decision at all."""
    if not len(seconds):
        return {"p50": None, "p99": None}
    p50, p99 = np.percentile(np.asarray(seconds) * 1000.0, [50, 99])
    return {"p50": float(p50), "p99": float(p99)}
