"""The whole of a learner as safetensors and JSON: networks, targets, temperature, update count, optimisers.

RLlib's own checkpoints are pickles, so they are not used; `LearnerGroup.get_state` and `set_state` carry the same
content between the learner (local or remote) and these two files.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_OPTIMIZER, COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.core.learner.learner_group import LearnerGroup
from safetensors import SafetensorError
from safetensors.numpy import load_file
from safetensors.numpy import save as as_safetensors

from ace_ray.config.errors import AceError, RunFolderError
from ace_ray.config.files import write, write_json
from ace_ray.learner.module import POLICY_PREFIX

WEIGHTS = "learner.safetensors"
GROUPS = "learner.json"

_WANTED = [f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}", f"{COMPONENT_LEARNER}/{COMPONENT_OPTIMIZER}"]


def module_state(group: LearnerGroup) -> dict[str, np.ndarray]:
    """The module's state dict as NumPy arrays, fetched from the first learner."""
    state = group.get_state(components=[_WANTED[0]])
    return state[COMPONENT_LEARNER][COMPONENT_RL_MODULE][DEFAULT_MODULE_ID]


def policy_weights(group: LearnerGroup) -> dict[str, np.ndarray]:
    """`SlotNetwork.state_dict()` of the present policy, as NumPy arrays."""
    return policy_part(module_state(group))


def policy_part(module: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The policy's entries of a module's state dict, without their prefix."""
    return {k.removeprefix(POLICY_PREFIX): v for k, v in module.items() if k.startswith(POLICY_PREFIX)}


def save(group: LearnerGroup, folder: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Writes the learner's state into an existing folder.

    Returns:
        The module's state dict, so that a caller saves the policy of the very same moment.
    """
    state = group.get_state(components=_WANTED)[COMPONENT_LEARNER]
    module = state[COMPONENT_RL_MODULE][DEFAULT_MODULE_ID]
    tensors = {f"module/{name}": _array(value) for name, value in module.items()}
    groups: dict[str, Any] = {}
    for name, optimiser in state[COMPONENT_OPTIMIZER].items():
        groups[name] = [_plain(group) for group in optimiser["state"]["param_groups"]]
        for index, moments in optimiser["state"]["state"].items():
            for key, value in moments.items():
                tensors[f"optimiser/{name}/{index}/{key}"] = _array(value)
    folder = Path(folder)
    write(folder / WEIGHTS, as_safetensors(tensors))
    write_json(folder / GROUPS, groups)
    return module


def load(group: LearnerGroup, folder: str | os.PathLike[str]) -> None:
    """Puts a saved state back into every learner of the group.

    Raises:
        RunFolderError: Files missing or torn.
        AceError: Made for other network sizes.
    """
    folder = Path(folder)
    try:
        tensors = load_file(folder / WEIGHTS)
        groups = json.loads((folder / GROUPS).read_text())
    except (OSError, SafetensorError, ValueError) as error:
        raise RunFolderError(
            f"the learner's state in {folder} cannot be read: {error}",
            f"remove {folder} to resume from an earlier checkpoint",
        ) from error
    module = {k.removeprefix("module/"): v for k, v in tensors.items() if k.startswith("module/")}
    _check_sizes(module_state(group), module, folder)
    optimisers: dict[str, Any] = {
        name: {"module_id": DEFAULT_MODULE_ID, "state": {"state": {}, "param_groups": _tuples(param_groups)}}
        for name, param_groups in groups.items()
    }
    for key, value in tensors.items():
        if key.startswith("optimiser/"):
            _, name, index, moment = key.split("/")
            optimisers[name]["state"]["state"].setdefault(int(index), {})[moment] = value
    group.set_state(
        {COMPONENT_LEARNER: {COMPONENT_RL_MODULE: {DEFAULT_MODULE_ID: module}, COMPONENT_OPTIMIZER: optimisers}}
    )


def _check_sizes(here: Mapping[str, np.ndarray], saved: Mapping[str, np.ndarray], folder: Path) -> None:
    # RLlib loads with strict=False: a network of other sizes or names would be half loaded without a word.
    differing = sorted(
        set(here) ^ set(saved) | {k for k in set(here) & set(saved) if np.shape(here[k]) != np.shape(saved[k])}
    )
    if differing:
        raise AceError(
            f"the learner's state in {folder} does not fit this network (first difference: {differing[0]})",
            "resume with the policy.* and grid.* settings that the run was started with",
        )


def _array(value: Any) -> np.ndarray:
    # Not ascontiguousarray: it would give a scalar (temperature, update count, Adam's step) a dimension.
    return np.array(value, order="C")


def _plain(group: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in group.items()}


def _tuples(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [group | {"betas": tuple(group["betas"])} for group in groups]
