"""Checkpoints of a run: `checkpoints/NNNNNN/`, where NNNNNN counts learner updates and 000000 is the greedy start.

    policy.safetensors  policy.json     what agents and exports load (ace_ray.policy.checkpoint)
    learner.safetensors learner.json    networks, targets, temperature, optimisers (ace_ray.learner.state)
    state.json                          counters of the loop and where the replay log stood

A checkpoint is written beside its place and renamed into it, so a folder with a number is always whole. The replay is
not part of it: its shards are their own durable truth, and a resume takes all of them, also those sealed after the
last checkpoint.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ray.rllib.core.learner.learner_group import LearnerGroup

from ace_ray.config.errors import RunFolderError
from ace_ray.config.files import disk, replacing, write_json
from ace_ray.learner import state as learner_state
from ace_ray.policy import checkpoint as policy_files
from ace_ray.policy.checkpoint import PolicyCard

STATE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """One finished checkpoint on disk."""

    path: Path

    @property
    def updates(self) -> int:
        return int(self.path.name)

    def set_aside(self) -> None:
        """Takes a torn checkpoint out of the numbered ones: `NNNNNN.torn`."""
        torn = self.path.with_suffix(".torn")
        with disk(torn):
            shutil.rmtree(torn, ignore_errors=True)
            self.path.rename(torn)

    def state(self) -> dict[str, Any]:
        """Counters of the loop as they were.

        Raises:
            RunFolderError: Torn.
        """
        try:
            return json.loads((self.path / STATE).read_text())
        except (OSError, ValueError) as error:
            raise RunFolderError(
                f"{self.path / STATE} cannot be read: {error}",
                f"remove {self.path} to resume from an earlier checkpoint",
            ) from error


def find(folder: Path) -> list[Checkpoint]:
    """All finished checkpoints of a run, oldest first."""
    found = [Checkpoint(p) for p in folder.glob("*") if p.name.isdigit() and (p / STATE).is_file()]
    return sorted(found, key=lambda c: c.updates)


def write(
    folder: Path, group: LearnerGroup, card: Callable[[int], PolicyCard], state: Mapping[str, Any], keep: int
) -> Checkpoint:
    """Writes a checkpoint of the learner as it is now and drops old ones.

    Args:
        folder: `<run>/checkpoints`.
        group: The learner.
        card: Makes the policy's card from the number of updates.
        state: Counters of the loop, JSON-able.
        keep: Latest checkpoints that stay, 000000 besides.

    Raises:
        RunFolderError: Disk full or not writable; the checkpoints before it stay whole.
    """
    updates = int(learner_state.module_state(group)["updates"])
    done = Checkpoint(folder / f"{updates:06d}")
    with replacing(done.path, parents=True) as unfinished:  # one of the same number has older counters: replaced too
        unfinished.mkdir()
        module = learner_state.save(group, unfinished)
        weights = {name: torch.as_tensor(value) for name, value in learner_state.policy_part(module).items()}
        policy_files.save(unfinished, weights, card(updates))
        write_json(unfinished / STATE, {**state, "updates": updates})
    for old in [c for c in find(folder) if c.updates][:-keep]:
        shutil.rmtree(old.path, ignore_errors=True)
    return done
