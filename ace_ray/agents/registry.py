"""From the name of an agent, as `ace evaluate --agent` takes it, to the agent."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from grid2op.Agent import BaseAgent

from ace_ray.agents.base import OwnAgent
from ace_ray.agents.baseline import DoNothing, Reconnect
from ace_ray.agents.expert.expert import Expert
from ace_ray.agents.greedy import Greedy, GreedyChecked
from ace_ray.config.errors import AceError, ConfigError
from ace_ray.config.grid import GridSettings
from ace_ray.config.load import load_settings
from ace_ray.grid.engine import DecisionEngine

OWN_AGENTS: dict[str, type[OwnAgent]] = {
    "do-nothing": DoNothing,
    "reconnect": Reconnect,
    "greedy": Greedy,
    "greedy+check": GreedyChecked,
    "expert": Expert,
}
POLICY_AGENTS = ("policy", "policy+check")
KNOWN = (*OWN_AGENTS, "llm", "policy:RUN[@0|@N]", "policy+check:RUN[@0|@N]", "module:make_agent")
RUNS = "ACE_RUNS"

_given: dict[str, Callable[[Any, GridSettings], BaseAgent]] = {}


@contextlib.contextmanager
def given(spec: str, make_agent: Callable[[Any, GridSettings], BaseAgent]) -> Iterator[None]:
    """In this process and for the length of a block, `spec` names what `make_agent(env, settings)` returns.

    For an agent that needs more than its name says, such as a connection to a language model.
    """
    _given[spec] = make_agent
    try:
        yield
    finally:
        del _given[spec]


def make(spec: str, env: Any, settings: GridSettings) -> BaseAgent:
    """Makes the agent that `spec` names.

    Args:
        spec: one of `KNOWN`. RUN is a run folder, a checkpoint or export folder, or the name of a run under
            $ACE_RUNS (default ./runs); `@0` is its policy before the first update, `@N` the one after N updates,
            neither the latest. In `module:make_agent` the module is importable, or a folder or file with a Grid2Op
            submission; the function is called as `make_agent(env, path)`.
        env: the Grid2Op environment that it will play in; read for its spaces and grid, never stepped.
        settings: predicate, candidates and rules of our own agents.

    Raises:
        ConfigError: no such agent.
        AceError: a run or checkpoint that is missing or torn.
        GridMismatchError: a policy made for another grid.
    """
    if spec in _given:
        return _given[spec](env, settings)
    if spec in OWN_AGENTS:
        return OWN_AGENTS[spec](env.action_space, DecisionEngine(env, settings))
    kind, _, rest = spec.partition(":")
    if kind in POLICY_AGENTS and rest:
        from ace_ray.agents.policy import PolicyAgent, PolicyChecked  # torch takes seconds, and only these need it

        kinds: dict[str, type[PolicyAgent]] = {"policy": PolicyAgent, "policy+check": PolicyChecked}
        return kinds[kind].load(env.action_space, DecisionEngine(env, settings), policy_folder(rest), settings.env)
    if ":" in spec:
        return _outside(spec, env)
    raise ConfigError(f"no agent is called {spec!r}", f"take one of: {', '.join(KNOWN)}")


def check(spec: str) -> None:
    """Raises what `make` would raise without an environment: unknown names, missing runs; cheap, before work starts."""
    kind, _, rest = spec.partition(":")
    if kind in POLICY_AGENTS and rest:
        from ace_ray.policy import checkpoint

        checkpoint.load_card(policy_folder(rest))
    elif spec not in OWN_AGENTS and spec not in _given and ":" not in spec:
        raise ConfigError(f"no agent is called {spec!r}", f"take one of: {', '.join(KNOWN)}")


def trained_settings(spec: str) -> GridSettings | None:
    """The grid settings that the policy of `spec` was made under, where its run or export is still around it.

    None for a checkpoint alone, and for an agent that is no policy of ours.

    Raises:
        AceError: no such run or checkpoint.
    """
    kind, _, rest = spec.partition(":")
    if kind not in POLICY_AGENTS or not rest:
        return None
    from ace_ray.agents.exported import SETTINGS, settings_of  # as above: torch

    folder = policy_folder(rest)
    if (folder / SETTINGS).is_file():
        return settings_of(folder)
    config = folder.resolve().parents[1] / "config.yaml"
    return load_settings([config]).grid if config.is_file() else None


def policy_folder(run: str) -> Path:
    """The checkpoint folder of `RUN`, `RUN@0` or `RUN@N`.

    Raises:
        AceError: no such run or checkpoint.
    """
    from ace_ray.policy import checkpoint

    name, _, version = run.partition("@")
    folder = Path(name)
    if not folder.exists():
        folder = Path(os.environ.get(RUNS, "runs")) / name
    if not folder.exists():
        raise AceError(f"no run {name!r}", "name a run folder, or a run that `ace runs list` shows")
    return checkpoint.find(folder, version or None)


def _outside(spec: str, env: Any) -> BaseAgent:
    """An agent of somebody else: `module:make_agent`, or the folder of a Grid2Op submission."""
    name, _, function = spec.rpartition(":")
    path = Path(name)
    if path.exists():
        folder = path if path.is_dir() else path.parent
        # A submission folder is a package when it has an __init__.py, and its parent is what has to be importable.
        root, name = (folder.parent, folder.name) if path.is_dir() else (folder, path.stem)
    else:
        root = folder = Path.cwd()
    place = str(root.resolve())
    if place not in sys.path:  # it stays there: submissions import their own files late
        sys.path.insert(0, place)
    try:
        maker = getattr(importlib.import_module(name), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"agent {spec!r} cannot be loaded: {error}", f"take one of: {', '.join(KNOWN)}") from error
    return maker(env, str(folder.resolve()))
