"""`ace evaluate`: agents on paired scenarios."""

from __future__ import annotations

import importlib.metadata
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ace_ray.agents import registry
from ace_ray.config.errors import ConfigError, DataError
from ace_ray.config.grid import GridSettings
from ace_ray.config.load import load_settings
from ace_ray.config.run import RunSettings
from ace_ray.evaluation.episodes import episode_folder, episode_name
from ace_ray.evaluation.player import EpisodeJob, JobResult, Playable, StatisticsJob
from ace_ray.evaluation.pool import Pool
from ace_ray.evaluation.precision import Precision, halfwidth
from ace_ray.evaluation.result import Episode, Evaluation, percentiles
from ace_ray.evaluation.scores import COSTS, ScoreStatistics, check_costs, statistics_file
from ace_ray.grid.physics.catalogue import Catalogue
from ace_ray.grid.scenarios.environment import data_set, make_env
from ace_ray.grid.scenarios.scenario import Scenario, reset_to
from ace_ray.grid.scenarios.scenario_sets import ScenarioSet, parse

VERSIONED = ("ace-ray", "grid2op", "lightsim2grid", "numpy", "torch")


@dataclass(frozen=True)
class Extras:
    """What an evaluation may do beside playing.

    Attributes:
        scores: folder of score statistics: the L2RPN scores are computed, and statistics that are missing made.
        episodes: folder that gets every episode as Grid2Op's `EpisodeData`, one subfolder an agent.
        figure: PNG of the grid before and after one action of the first episode of the first agent.
        figure_step: environment step (0: the first) of that action; None: the first decision that did something.
    """

    scores: Path | None = None
    episodes: Path | None = None
    figure: Path | None = None
    figure_step: int | None = None


def evaluation_settings(
    agents: Sequence[registry.AgentSpec],
    profiles: Sequence[Path | str] = (),
    overrides: Sequence[str] = (),
    env: str | None = None,
    data: str | None = None,
) -> tuple[RunSettings, list[GridSettings]]:
    """The settings of an evaluation, and those of the grid for each agent.

    A policy plays under the settings of its own run; the agents that do not learn under those of the first policy.
    Profiles and overrides, then `env` and `data`, go over them.
    """
    trained = [registry.trained_settings(agent) for agent in agents]
    usual = next((grid for grid in trained if grid is not None), None)
    replaced = {name: value for name, value in (("env", env), ("data", data)) if value is not None}
    found = []
    for grid in [usual, *(own or usual for own in trained)]:
        settings = load_settings(profiles, overrides, base=RunSettings(grid=grid) if grid else None)
        found.append((settings, settings.grid.model_copy(update=replaced)))
    return found[0][0], [grid for _, grid in found[1:]]


def evaluate_all(
    agents: Sequence[registry.AgentSpec],
    scenarios: str | ScenarioSet,
    settings: GridSettings | Sequence[GridSettings],
    *,
    processes: int,
    progress: bool = True,
    extras: Extras = Extras(),
    until: Precision | None = None,
) -> list[Evaluation]:
    """Evaluates agents on the same scenarios over one pool of workers.

    Args:
        agents: see `ace_ray.agents.registry.make`.
        scenarios: `test:16`, `chronics=0,1;seeds=0-3`, … or a set already parsed; played by every agent.
        settings: of the grid; one for all, or one an agent (other predicates; environment and data must be the same).
        processes: worker processes; 1 plays in this one.
        progress: shows a progress bar on stderr.
        extras: scores, saved episodes, a figure.
        until: further environment seeds of the scenarios are played until this is reached; None: none are.

    Returns:
        One evaluation an agent, in their order.

    Raises:
        AceError: unknown agent, environment, data or scenarios, episodes that are saved already: all before any
            episode is played. WorkerError and ResourceError as `Pool.run`.
    """
    each = [settings] * len(agents) if isinstance(settings, GridSettings) else list(settings)
    _check_agents(agents, each)
    chosen = parse(scenarios, each[0]) if isinstance(scenarios, str) else scenarios
    if twice := [one for one, count in Counter(chosen.scenarios).items() if count > 1]:
        raise DataError(
            f"{len(twice)} scenarios occur more than once, such as chronic {twice[0].chronic} with seed "
            f"{twice[0].env_seed}",
            "name each chronic and seed once",
        )
    _check_new(agents, chosen.scenarios, extras)
    if until:
        until.check(chosen.scenarios, each[0])
    env = make_env(each[0])
    if extras.scores:
        check_costs(env, each[0])
    catalogue = Catalogue.from_env(env).hash
    _check_chronics(env, chosen.scenarios)
    env.close()
    seen = [_in_sample(agent, grid, chosen) for agent, grid in zip(agents, each, strict=True)]
    name = given = scenarios if isinstance(scenarios, str) else chosen.split
    statistics: dict[Scenario, ScoreStatistics] = {}
    outcomes: list[JobResult] = []
    new, asked = chosen.scenarios, len(chosen.scenarios)
    with Pool(processes) as pool:
        while True:
            if extras.scores:
                statistics |= _statistics(pool, new, each[0], extras.scores, progress)
            # Scenario by scenario rather than agent by agent: workers stay even.
            jobs = [
                _job(agent, each[i], scenario, extras, first=not outcomes and number == i == 0)
                for number, scenario in enumerate(new)
                for i, agent in enumerate(agents)
            ]
            outcomes += _play(pool, jobs, "evaluate", progress, _figure_check(jobs, extras))
            found = [
                _collect(agent, each[i], chosen, seen[i], name, catalogue, outcomes[i :: len(agents)], statistics)
                for i, agent in enumerate(agents)
            ]
            new = until.further(found, chosen.scenarios) if until else ()
            if until and progress:
                tqdm.write(_narrowed(found, len(new)), file=sys.stderr)
            if not new:
                return found
            _check_new(agents, new, extras)
            chosen = replace(chosen, scenarios=(*chosen.scenarios, *new))
            name = f"{given} and {len(chosen.scenarios) - asked} with further seeds"


def _figure_check(jobs: Sequence[EpisodeJob], extras: Extras) -> Callable[[int, JobResult], None]:
    """Fails as soon as the episode that was to be drawn is over and was not."""

    def check(index: int, result: JobResult) -> None:
        if jobs[index].figure and result.drawn is False:
            step = extras.figure_step
            wanted = "decision that acts" if step is None else f"environment step {step}"
            raise DataError(
                f"the first episode has no {wanted}, so there is no figure to draw",
                "choose another step or scenario, or leave --figure out",
            )

    return check


def _narrowed(found: Sequence[Evaluation], further: int) -> str:
    width, count = halfwidth(found), len(found[0].episodes)
    what = "no interval" if width is None else f"the interval is +-{width:.1f} points"
    return f"{count} scenarios: {what}; {f'{further} more' if further else 'no more'}"


def _check_chronics(env: Any, scenarios: Sequence[Scenario]) -> None:
    """Starts one scenario of every chronic, so that a bad one costs none of the episodes played before it.

    Chronics that ship with Grid2Op or this package are taken as they are: reading them all would take longer.

    Raises:
        DataError: names every chronic that cannot be read or started.
    """
    first = {scenario.chronic: scenario for scenario in reversed(scenarios)}
    bad: dict[str, DataError] = {}
    for chronic, scenario in sorted(first.items()):
        if scenario.data in ("packaged", "shipped"):
            continue
        try:
            reset_to(env, scenario)
        except DataError as error:
            bad[chronic] = error
    if bad:
        told = next(iter(bad.values()))
        raise DataError(
            f"{len(bad)} of {len(first)} chronics cannot be played ({', '.join(bad)}): {told.problem}",
            f"{told.remedy}; or leave them out: --scenarios 'chronics=NAME,NAME;seeds=…'",
        )


def _check_agents(agents: Sequence[registry.AgentSpec], each: Sequence[GridSettings]) -> None:
    names = [str(agent) for agent in agents]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise ConfigError(f"agent '{twice[0]}' is given twice", "name each agent once")
    for agent in agents:
        registry.check(agent)
    for name, grid in zip(names[1:], each[1:], strict=True):
        if (grid.env, grid.data) != (each[0].env, each[0].data):
            raise ConfigError(
                f"{names[0]} would play on {each[0].env}, data {each[0].data or 'default'}, and {name} on {grid.env}, "
                f"data {grid.data or 'default'}",
                "pass --env and --data, or evaluate agents of different grids apart",
            )


def _in_sample(agent: registry.AgentSpec, settings: GridSettings, chosen: ScenarioSet) -> bool:
    """Whether the agent was trained on these injections; never for rules, which do not learn.

    Where it is not known what an agent was trained on: whether training on this data set would have seen them.
    """
    if agent in registry.OWN_AGENTS:
        return False
    trained = registry.trained_settings(agent)
    if trained is None:
        return chosen.in_sample
    try:
        data = data_set(trained)
    except DataError:  # its data have gone
        return chosen.in_sample
    if (trained.env, data.id) != (settings.env, chosen.scenarios[0].data):
        return False
    return data.in_sample({scenario.chronic for scenario in chosen.scenarios})


def _check_new(agents: Sequence[registry.AgentSpec], scenarios: Sequence[Scenario], extras: Extras) -> None:
    if extras.episodes is None:
        return
    for agent in agents:
        for scenario in scenarios:
            path = episode_folder(extras.episodes, str(agent)) / episode_name(scenario)
            if path.exists():
                raise DataError(f"{path} exists already", "choose another folder for the episodes, or remove it")


def _job(
    agent: registry.AgentSpec, settings: GridSettings, scenario: Scenario, extras: Extras, first: bool
) -> EpisodeJob:
    return EpisodeJob(
        agent,
        settings,
        scenario,
        costs=extras.scores is not None,
        record=episode_folder(extras.episodes, str(agent)) if extras.episodes else None,
        figure=extras.figure if first else None,
        figure_step=extras.figure_step,
    )


def _statistics(
    pool: Pool, scenarios: Sequence[Scenario], settings: GridSettings, folder: Path, progress: bool
) -> dict[Scenario, ScoreStatistics]:
    """Score statistics of every scenario; those that the folder lacks are made, and each is kept as it is made."""
    missing = [one for one in scenarios if not statistics_file(folder, one).exists()]

    def keep(index: int, found: ScoreStatistics) -> None:
        found.save(statistics_file(folder, missing[index]))

    _play(pool, [StatisticsJob(settings, one) for one in missing], "score statistics", progress, keep)
    return {scenario: ScoreStatistics.load_from(statistics_file(folder, scenario)) for scenario in scenarios}


def _play(
    pool: Pool, jobs: Sequence[Playable], what: str, progress: bool, then: Callable[[int, Any], None]
) -> list[Any]:
    """Plays jobs and returns what they returned; `then` gets each index and result as soon as it is there."""
    results: list[Any] = [None] * len(jobs)
    with tqdm(total=len(jobs), desc=what, unit="episode", disable=not progress or not jobs) as bar:
        for index, result in pool.run(jobs):
            then(index, result)
            results[index] = result
            bar.update()
    return results


def _collect(
    agent: registry.AgentSpec,
    settings: GridSettings,
    chosen: ScenarioSet,
    in_sample: bool,
    name: str,
    catalogue: str,
    outcomes: Sequence[JobResult],
    statistics: dict[Scenario, ScoreStatistics],
) -> Evaluation:
    episodes = [
        _scored(outcome, statistics.get(scenario)) for scenario, outcome in zip(chosen.scenarios, outcomes, strict=True)
    ]
    return Evaluation(
        agent=str(agent),
        env=settings.env,
        predicate=settings.critical.predicate,
        data=chosen.scenarios[0].data,
        split=chosen.split,
        scenarios=name,
        in_sample=in_sample,
        episodes=tuple(episodes),
        decision_ms=percentiles([second for one in outcomes for second in one.played.decision_seconds]),
        catalogue=catalogue,
        settings=settings.model_dump(),
        versions=versions(),
    )


def _scored(outcome: JobResult, statistics: ScoreStatistics | None) -> Episode:
    if statistics is None or outcome.costs is None:
        return outcome.played.episode
    scores = {name: statistics.score(name, outcome.costs[name]) for name in COSTS}
    return replace(outcome.played.episode, score_2020=scores["score_2020"], score_2022=scores["score_2022"])


def versions() -> dict[str, str]:
    """Versions of the packages that numbers depend on."""
    found: dict[str, Any] = {}
    for package in VERSIONED:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
