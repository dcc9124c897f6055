"""`ace evaluate`: agents on paired scenarios."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from ace_ray.agents import registry
from ace_ray.config.grid import GridSettings
from ace_ray.evaluation.play import Played
from ace_ray.evaluation.pool import Job, play_all
from ace_ray.evaluation.result import Evaluation, percentiles
from ace_ray.grid.catalogue import Catalogue
from ace_ray.grid.environment import make_env
from ace_ray.grid.scenario_sets import ScenarioSet, parse

VERSIONED = ("ace-ray", "grid2op", "lightsim2grid", "numpy", "torch")


def evaluate(
    agent: str,
    scenarios: str | ScenarioSet,
    settings: GridSettings,
    *,
    env: str | None = None,
    data: str | None = None,
    processes: int = 2,
    json_path: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Evaluation:
    """Evaluates one agent; `ace evaluate --agent A --env E --data D --scenarios S --json FILE`.

    Args:
        agent: see `ace_ray.agents.registry.make`.
        scenarios: `test:16`, `chronics=0,1;seeds=0-3`, … or a set already parsed.
        settings: of the grid; `env` and `data` override theirs where given.
        processes: worker processes; 1 plays in this one.
        json_path: where the result is written as JSON.
        progress: shows a progress bar on stderr.

    Raises:
        AceError: unknown agent, environment, data or scenarios, before any episode is played.
    """
    settings = settings.model_copy(update={k: v for k, v in (("env", env), ("data", data)) if v is not None})
    result = evaluate_all([agent], scenarios, settings, processes=processes, progress=progress)[0]
    if json_path is not None:
        result.save(json_path)
    return result


def evaluate_all(
    agents: Sequence[str],
    scenarios: str | ScenarioSet,
    settings: GridSettings | Sequence[GridSettings],
    *,
    processes: int = 2,
    progress: bool = True,
) -> list[Evaluation]:
    """Evaluates several agents on the same scenarios over one pool of workers.

    Args:
        agents: see `ace_ray.agents.registry.make`.
        scenarios: played by every agent.
        settings: one for all, or one an agent (other predicates; environment and data must be the same).
        processes, progress: as in `evaluate`.

    Returns:
        One evaluation an agent, in their order.
    """
    each = [settings] * len(agents) if isinstance(settings, GridSettings) else list(settings)
    for agent in agents:
        registry.check(agent)
    chosen = parse(scenarios, each[0]) if isinstance(scenarios, str) else scenarios
    # Scenario by scenario rather than agent by agent: a run that is cut short has pairs, and the workers stay even.
    jobs: list[Job] = [(a, s, scenario) for scenario in chosen.scenarios for a, s in zip(agents, each, strict=True)]
    played: list[Played | None] = [None] * len(jobs)
    with tqdm(total=len(jobs), desc="evaluate", unit="episode", disable=not progress) as bar:
        for index, one in play_all(jobs, processes):
            played[index] = one
            bar.update()
    name = scenarios if isinstance(scenarios, str) else chosen.split
    catalogue = Catalogue.from_env(make_env(each[0])).hash
    return [
        _collect(agent, each[i], chosen, name, catalogue, [p for p in played[i :: len(agents)] if p is not None])
        for i, agent in enumerate(agents)
    ]


def _collect(
    agent: str, settings: GridSettings, chosen: ScenarioSet, name: str, catalogue: str, played: Sequence[Played]
) -> Evaluation:
    return Evaluation(
        agent=agent,
        env=settings.env,
        predicate=settings.critical.predicate,
        data=chosen.scenarios[0].data,
        split=chosen.split,
        scenarios=name,
        in_sample=chosen.in_sample,
        episodes=tuple(one.episode for one in played),
        decision_ms=percentiles([second for one in played for second in one.decision_seconds]),
        illegal_actions=sum(one.illegal_actions for one in played),
        catalogue=catalogue,
        settings=settings.model_dump(),
        versions=versions(),
    )


def versions() -> dict[str, str]:
    """Versions of the packages that numbers depend on."""
    found: dict[str, Any] = {}
    for package in VERSIONED:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
