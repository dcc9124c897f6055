"""What `import ace_ray` offers: an environment, an agent, an evaluation, a training, in one call each.

`settings` are what the command line takes: names or paths of profiles, and `dotted.key=value`, in any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ace_ray.config.load import load_settings
from ace_ray.config.run import RunSettings

if TYPE_CHECKING:
    from grid2op.Agent import BaseAgent

    from ace_ray.evaluation.result import Evaluation
    from ace_ray.grid.decision_env import DecisionEnv

__all__ = ["evaluate", "load_agent", "make", "train"]


def make(env: str | None = None, *settings: str) -> DecisionEnv:
    """A Gymnasium environment whose steps are decisions: K candidate actions, of which a mask says which are legal.

    `reset(options={"scenario": "test:1"})` plays the first scenario of a set (default: `train:1`);
    `info["decision"]` holds the candidates.

    Args:
        env: Grid2Op environment, such as `l2rpn_case14_sandbox`; None: setting `grid.env`.
        settings: profiles and `dotted.key=value`.

    Raises:
        AceError: an unknown environment, or settings that do not hold.
    """
    from ace_ray.grid.decision_env import DecisionEnv
    from ace_ray.grid.engine import DecisionEngine
    from ace_ray.grid.scenarios.environment import make_env

    grid = _settings(settings).grid.model_copy(update={} if env is None else {"env": env})
    made = make_env(grid)
    return DecisionEnv(made, DecisionEngine(made, grid), grid)


def load_agent(agent: str, env: Any, *settings: str) -> BaseAgent:
    """A Grid2Op agent by the name that `ace evaluate --agent` takes.

    Args:
        agent: `greedy`, `expert`, `policy:RUN`, `module:make_agent`, …
        env: what it will play in: a Grid2Op environment with the LightSim backend, or what `make` returned.
        settings: profiles and `dotted.key=value`; a policy plays under those of its own run where none are given.

    Raises:
        AceError: no such agent or run, or a policy made for another grid.
    """
    from ace_ray.agents import registry
    from ace_ray.evaluation.evaluate import evaluation_settings

    _, (grid,) = evaluation_settings([agent], *_parts(settings))
    return registry.make(agent, getattr(env, "env", env), grid)


def evaluate(agents: str | Sequence[str], scenarios: str, *settings: str, env: str | None = None) -> list[Evaluation]:
    """Agents on the same scenarios, in this process or in as many as setting `evaluation.processes` says.

    Args:
        agents: one name or several, as for `load_agent`.
        scenarios: `test:16`, `chronics=0,1;seeds=0-3`, … (docs/scenarios.md).
        settings: profiles and `dotted.key=value`.
        env: Grid2Op environment; None: setting `grid.env`, or that of the policy's run.

    Returns:
        One evaluation an agent: `survival`, `episodes`, `to_json()`, ….

    Raises:
        AceError: before anything is played.
    """
    from ace_ray.evaluation.evaluate import evaluate_all, evaluation_settings

    names = [agents] if isinstance(agents, str) else list(agents)
    run, grids = evaluation_settings(names, *_parts(settings), env=env)
    return evaluate_all(names, scenarios, grids, processes=run.evaluation.processes, progress=False)


def train(*settings: str) -> Path:
    """Trains, and ends with a table as `ace train` does; Ctrl-C and SIGTERM stop it in order.

    Args:
        settings: profiles and `dotted.key=value`, such as `"local", "refiner=search", "budget.minutes=5"`.

    Returns:
        The folder of the run; `load_agent(f"policy:{folder}", env)` plays its policy.

    Raises:
        AceError: the run cannot start, or failed. KeyboardInterrupt: it was stopped; it can be resumed.
    """
    from ace_ray.coevolution.run_folder import new_name
    from ace_ray.coevolution.train import run
    from ace_ray.config.paths import runs_root

    chosen = _settings(settings)
    if not chosen.name:
        chosen = chosen.model_copy(update={"name": new_name(chosen)})
    if run(chosen):
        raise KeyboardInterrupt
    return Path(runs_root(chosen)) / chosen.name


def _parts(settings: Sequence[str]) -> tuple[list[str], list[str]]:
    """Profiles, and `dotted.key=value`."""
    return [s for s in settings if "=" not in s], [s for s in settings if "=" in s]


def _settings(settings: Sequence[str]) -> RunSettings:
    return load_settings(*_parts(settings))
