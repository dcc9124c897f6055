"""Puts the method together on a domain: the one module of these rooms that knows the power grid."""

from __future__ import annotations

from typing import Any

from ace_ray.agents.greedy import Greedy
from ace_ray.config.grid import GridSettings
from ace_ray.config.refine import LanguageSettings
from ace_ray.domain import Domain
from ace_ray.grid.domain import GridDomain
from ace_ray.grid.engine import DecisionEngine
from ace_ray.grid.scenarios.environment import make_env
from ace_ray.grid.simulator import GridSimulator
from ace_ray.language.actor import Actor
from ace_ray.refine.comparator import Comparator


def domain_of(settings: GridSettings) -> Domain:
    """The domain that the settings are about."""
    return GridDomain()


def make_comparator(
    env: Any, engine: DecisionEngine, settings: GridSettings | None = None, keep: int = 12
) -> Comparator:
    """A comparator on an environment of its own, which is continued by rules and greedy (no check).

    Args:
        env: reset and stepped by the comparator; nobody else may touch it.
        engine: decision engine of that grid; its proposal memory is part of the continuation.
        settings: None: the engine's.
        keep: copies of the environment kept near decisions (about 2 MB each).
    """
    return Comparator(GridSimulator(env, engine, settings, keep), Greedy(env.action_space, engine))


class Workbench:
    """What it takes to think twice about decisions: one environment, its engine, the comparator and the actor.

    Args:
        grid: settings of the environment; making it takes some seconds and about 400 MB.
        language: settings of the prompts.
        keep: see `make_comparator`.

    Attributes:
        engine: shared by the comparator and the actor.
        comparator: the environment is its own.
        actor: words of the grid.
    """

    def __init__(self, grid: GridSettings, language: LanguageSettings, keep: int = 12) -> None:
        env = make_env(grid)
        self.engine = DecisionEngine(env, grid)
        self.comparator = make_comparator(env, self.engine, grid, keep)
        self.actor = Actor.of(env, self.engine, language)
