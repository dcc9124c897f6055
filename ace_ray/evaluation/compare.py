"""Paired comparison of evaluations: differences episode by episode, B - A."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ace_ray.config.errors import ConfigError, DataError, GridMismatchError
from ace_ray.evaluation.result import Episode, Evaluation, load_all
from ace_ray.monitoring.statistics import Interval, interval

ABSENT = object()  # equal to nothing that a setting can be


@dataclass(frozen=True)
class Comparison:
    """B against A on the same scenarios.

    Attributes:
        a, b: names of the agents.
        survival, reward: mean paired difference B - A with its interval.
        full_episodes: full episodes of B minus those of A.
        better, equal, worse: episodes in which B survives longer, as long, less long than A.
        in_sample: of the scenarios.
    """

    a: str
    b: str
    episodes: int
    survival: Interval
    reward: Interval
    full_episodes: int
    better: int
    equal: int
    worse: int
    in_sample: bool

    def to_json(self) -> dict[str, Any]:
        """JSON-able form; differences are B - A."""
        return {
            "a": self.a,
            "b": self.b,
            "episodes": self.episodes,
            "survival": {"difference": self.survival.mean, "ci95": self.survival.ci95},
            "reward": {"difference": self.reward.mean, "ci95": self.reward.ci95},
            "full_episodes": self.full_episodes,
            "better": self.better,
            "equal": self.equal,
            "worse": self.worse,
            "intervals": self.survival.over,
            "contains_zero": self.survival.contains_zero,
            "in_sample": self.in_sample,
        }


def compare(a: Evaluation, b: Evaluation) -> Comparison:
    """B - A over the same scenarios.

    Raises:
        DataError: another environment, another data set or other scenarios: unpaired numbers are not compared.
        GridMismatchError: other action catalogues.
    """
    if a.env != b.env:
        raise DataError(f"{a.agent} was evaluated on {a.env}, {b.agent} on {b.env}", "evaluate both on one environment")
    if a.data != b.data:
        raise DataError(
            f"{a.agent} was evaluated on data {a.data}, {b.agent} on {b.data}", "pass the same --data twice"
        )
    if a.catalogue and b.catalogue and a.catalogue != b.catalogue:
        raise GridMismatchError(
            f"{a.agent} and {b.agent} were evaluated with different action catalogues", "evaluate both with one version"
        )
    pairs = _pairs(a, b)
    chronics = [first.chronic for first, _ in pairs]
    steps = np.array([second.steps - first.steps for first, second in pairs])
    return Comparison(
        a=a.agent,
        b=b.agent,
        episodes=len(pairs),
        survival=interval([second.survival - first.survival for first, second in pairs], chronics),
        reward=interval([second.reward - first.reward for first, second in pairs], chronics),
        full_episodes=b.full_episodes - a.full_episodes,
        better=int((steps > 0).sum()),
        equal=int((steps == 0).sum()),
        worse=int((steps < 0).sum()),
        in_sample=a.in_sample or b.in_sample,
    )


def read_apart(paths: Sequence[Path]) -> list[Evaluation]:
    """Reads results to be compared; an agent that occurs twice gets the name of its file beside its own.

    Args:
        paths: as `result.load_all` reads them.

    Raises:
        ConfigError: there are fewer than two results, or one file is given twice.
        DataError: as `result.load_all`.
    """
    if twice := [path for path, count in Counter(path.resolve() for path in paths).items() if count > 1]:
        raise ConfigError(f"{twice[0]} is given twice", "name each result once")
    found = [(one, path) for path in paths for one in load_all(path)]
    if len(found) < 2:
        raise ConfigError("there is one result and nothing to compare it with", "name two or more")
    stems = Counter(path.stem for path in paths)
    names = [path.stem if stems[path.stem] == 1 else str(path) for _, path in found]
    return named_apart([one for one, _ in found], names)


def named_apart(evaluations: Sequence[Evaluation], names: Sequence[str]) -> list[Evaluation]:
    """Evaluations whose agents all have names of their own: one that occurs twice gets the name of its file beside it.

    Args:
        evaluations: of any agents, such as one agent under two predicates.
        names: what tells them apart, one an evaluation.
    """
    counts = Counter(one.agent for one in evaluations)
    return [
        one if counts[one.agent] == 1 else replace(one, agent=f"{one.agent} ({name})")
        for one, name in zip(evaluations, names, strict=True)
    ]


def differences(a: Evaluation, b: Evaluation) -> list[str]:
    """Settings and versions in which two evaluations differ, `reward.offset 0.9 and 0.5`; those of `a` come first."""
    settings = _flat(a.settings), _flat(b.settings)
    found = []
    for first, second in (settings, (a.versions, b.versions)):
        keys = [*first, *(key for key in second if key not in first)]
        found += [
            f"{key} {first.get(key, 'unknown')} and {second.get(key, 'unknown')}"
            for key in keys
            if first.get(key, ABSENT) != second.get(key, ABSENT)
        ]
    return found


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _pairs(a: Evaluation, b: Evaluation) -> list[tuple[Episode, Episode]]:
    first = {episode.scenario: episode for episode in a.episodes}
    second = {episode.scenario: episode for episode in b.episodes}
    if len(first) != len(a.episodes) or len(second) != len(b.episodes):
        raise DataError("a scenario occurs twice in one evaluation", "evaluate each scenario once")
    if odd := set(first) ^ set(second):
        one = min(odd)
        chronic, seed, start, steps, maintenance, perturbation = one
        where = a.agent if one in first else b.agent
        raise DataError(
            f"{len(odd)} scenarios are in one evaluation only, such as chronic {chronic}, seed {seed}, start {start}, "
            f"{steps} steps, maintenance {maintenance:g}, perturbation {perturbation:g} ({where})",
            "pass the same --scenarios and --data to both",
        )
    return [(episode, second[scenario]) for scenario, episode in first.items()]


def points(found: Interval) -> str:
    """The interval of a share, in percentage points."""
    return bounds(found, scale=100.0, digits=1)


def bounds(found: Interval, scale: float = 1.0, digits: int = 2) -> str:
    """`[low, high]` times `scale`, with a word where the interval contains 0 or there is none."""
    if found.ci95 is None:
        return "no interval"
    low, high = (f"{scale * value:+.{digits}f}" for value in found.ci95)
    return f"[{low}, {high}]{' contains 0' if found.contains_zero else ''}"
