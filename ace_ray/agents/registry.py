"""From the name of an agent, as `ace evaluate --agent` takes it, to the agent."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from grid2op.Agent import BaseAgent

from ace_ray.agents.base import OwnAgent
from ace_ray.agents.expert.expert import Expert
from ace_ray.agents.greedy import DoNothing, Greedy, GreedyChecked, Reconnect
from ace_ray.config.errors import AceError, ConfigError
from ace_ray.config.grid import GridSettings
from ace_ray.config.load import load_settings
from ace_ray.config.paths import CONFIG, under_root
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


@dataclass(frozen=True)
class SavedPolicy:
    """A policy named by its folder, for callers that hold the folder and have no need of a text.

    Attributes:
        folder: checkpoint or export folder.
        name: of the agent in results.
        checked: whether its best slots are checked by `simulate` (`policy+check`).
    """

    folder: Path
    name: str
    checked: bool = False

    def __str__(self) -> str:
        return self.name


AgentSpec = str | SavedPolicy  # what names an agent

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


def make(spec: AgentSpec, env: Any, settings: GridSettings) -> BaseAgent:
    """Makes the agent that `spec` names.

    Args:
        spec: a `SavedPolicy`, or one of `KNOWN`. RUN is a run folder, a checkpoint or export folder, or the name of a
            run under $ACE_RUNS (default ./runs); `@0` is its policy before the first update, `@N` the latest, as
            without `@`, and a number the one after so many updates. In `module:make_agent` the module is importable,
            or a folder or file with a Grid2Op submission; the function is called as `make_agent(env, path)`.
        env: the Grid2Op environment that it will play in; read for its spaces and grid, never stepped.
        settings: predicate, candidates and rules of our own agents.

    Raises:
        ConfigError: no such agent.
        AceError: a run or checkpoint that is missing or torn.
        GridMismatchError: a policy made for another grid.
    """
    policy = saved_policy(spec)
    if policy is not None:
        from ace_ray.agents.policy import PolicyAgent, PolicyChecked  # torch takes seconds, and only these need it

        kind = PolicyChecked if policy.checked else PolicyAgent
        return kind.load(env.action_space, DecisionEngine(env, settings), policy.folder, settings.env)
    name = str(spec)
    if name in _given:
        return _given[name](env, settings)
    if name in OWN_AGENTS:
        return OWN_AGENTS[name](env.action_space, DecisionEngine(env, settings))
    make_agent, folder = _outside(name)
    return make_agent(env, str(folder))


def check(spec: AgentSpec) -> None:
    """Raises what `make` would raise without an environment: unknown names, missing runs; cheap, before work starts."""
    policy = saved_policy(spec)
    if policy is not None:
        from ace_ray.policy import checkpoint

        checkpoint.load_card(policy.folder)
    elif spec not in OWN_AGENTS and spec not in _given:
        _outside(str(spec))


def saved_policy(spec: AgentSpec) -> SavedPolicy | None:
    """The policy that `spec` names, None for an agent of another kind.

    Raises:
        AceError: no such run or checkpoint.
    """
    if isinstance(spec, SavedPolicy):
        return spec
    kind, colon, run = spec.partition(":")
    if not colon or kind not in POLICY_AGENTS:
        return None
    return SavedPolicy(policy_folder(run), spec, checked=kind == "policy+check")


def trained_settings(spec: AgentSpec) -> GridSettings | None:
    """The grid settings that the policy of `spec` was made under, where its run or export is still around it.

    None for a checkpoint alone, and for an agent that is no policy of ours.

    Raises:
        AceError: no such run or checkpoint.
    """
    policy = saved_policy(spec)
    if policy is None:
        return None
    from ace_ray.agents.exported import SETTINGS, settings_of  # as above: torch

    if (policy.folder / SETTINGS).is_file():
        return settings_of(policy.folder)
    config = policy.folder.resolve().parents[1] / CONFIG
    return load_settings([config]).grid if config.is_file() else None


def policy_folder(run: str) -> Path:
    """The checkpoint folder of `RUN`, `RUN@0` or `RUN@N`; an `@` that belongs to the path or the name stays there.

    Raises:
        AceError: no such run or checkpoint.
    """
    from ace_ray.policy import checkpoint

    if folder := _run_folder(run):
        return checkpoint.find(folder)
    name, _, version = run.rpartition("@")
    if not (version == "N" or version.isdecimal()):
        name, version = run, ""
    folder = _run_folder(name)
    if folder is None:
        raise AceError(f"no run {name!r}", "name a run folder, or a run that `ace runs list` shows")
    return checkpoint.find(folder, version or None)


def _run_folder(name: str) -> Path | None:
    place = under_root(name) if name else None
    return place if place is not None and place.exists() else None


def _outside(spec: str) -> tuple[Callable[[Any, str], BaseAgent], Path]:
    """A `make_agent` from outside and the folder that it is given: `module:make_agent`, or a Grid2Op submission.

    Raises:
        ConfigError: there is none.
    """
    name, colon, function = spec.rpartition(":")
    if not colon or not name:
        raise ConfigError(f"there is no agent {spec!r}", f"choose one of: {', '.join(KNOWN)}")
    path = Path(name).resolve()
    try:
        if path.exists():
            module, folder = _module_at(path), path if path.is_dir() else path.parent
        else:
            folder = Path.cwd()
            if str(folder) not in sys.path:
                sys.path.insert(0, str(folder))
            module = importlib.import_module(name)
        made = getattr(module, function)
    except Exception as error:  # of their code: anything
        raise ConfigError(
            f"agent {spec!r} cannot be loaded: {type(error).__name__}: {error}",
            "name a module, file or folder and its function make_agent(env, path)",
        ) from error
    return made, folder


def _module_at(path: Path) -> ModuleType:
    """The module in a file, or the package in a folder, whatever else has the same name.

    Submissions import their own files, late as well: relatively, or from the folder around them, which therefore
    stays on the path, after everything that is installed.
    """
    package = path.is_dir()
    file = path / "__init__.py" if package else path
    name = f"{re.sub(r'[^0-9a-zA-Z]', '_', path.stem)}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(
        name, file, submodule_search_locations=[str(path)] if package else None
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is not a Python file")
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
