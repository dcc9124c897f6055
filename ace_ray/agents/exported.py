"""What an exported folder calls: from files and an environment to the agent."""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

from ace_ray.agents.policy import PolicyAgent
from ace_ray.config.errors import AceError
from ace_ray.config.grid import GridSettings
from ace_ray.grid.engine import DecisionEngine

SETTINGS = "export.json"


def settings_of(folder: str | os.PathLike[str]) -> GridSettings:
    """The grid settings that an exported policy decides under.

    Raises:
        AceError: missing or torn.
    """
    path = Path(folder) / SETTINGS
    try:
        return GridSettings(**json.loads(path.read_text())["grid"])
    except (OSError, ValueError, KeyError) as error:
        raise AceError(f"{path} cannot be read: {error!r}", "name a folder that `ace export` wrote") from error


def load(env: Any, folder: str | os.PathLike[str]) -> PolicyAgent:
    """The agent of an exported folder.

    Args:
        env: the Grid2Op environment that it will play in, on any backend; neither reset nor stepped.
        folder: written by `ace_ray.agents.export.export`.

    Raises:
        GridMismatchError: `env` is another grid, or one whose actions are numbered otherwise.
        AceError: a file is missing or torn.
    """
    settings = settings_of(folder)
    engine = DecisionEngine(_with_lightsim(env), settings)
    return PolicyAgent.load(env.action_space, engine, folder, settings.env)


def _with_lightsim(env: Any) -> Any:
    """`env` itself, or a twin of it on the LightSim backend: the engine computes power flows with that one alone."""
    from lightsim2grid import LightSimBackend

    if isinstance(env.backend, LightSimBackend):
        return env
    import grid2op

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        twin = grid2op.make(env.get_path_env(), test=True, backend=LightSimBackend())
    twin.set_thermal_limit(env.get_thermal_limit())
    return twin
