"""A snapshot: one decision of one episode, as a scenario and the actions that led there.

Nothing of the simulator is stored. Replaying the log in any process gives the same state bit for bit, opponent and
maintenance included, so a snapshot of a few hundred bytes stands for an environment of megabytes.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from ace_ray.config.errors import GridMismatchError
from ace_ray.grid.physics.catalogue import Catalogue
from ace_ray.grid.scenarios.scenario import Scenario, reset_to

ActionLog = tuple[tuple[int, tuple[int, ...]], ...]
"""Sparse: (step offset from the scenario's start, catalogue ids applied at that step); other steps do nothing."""


@dataclass(frozen=True)
class Snapshot:
    """The state after `step` environment steps of `scenario` under `log`."""

    scenario: Scenario
    log: ActionLog
    step: int

    def key(self) -> str:
        """Stable id of the state: the scenario, the step and a digest of the log up to it."""
        played = json.dumps([[s, list(ids)] for s, ids in self.log if s < self.step])
        digest = hashlib.sha256(played.encode()).hexdigest()[:16]
        return f"{self.scenario.key()}@{self.step}#{digest}"

    def to_json(self) -> str:
        return json.dumps({"scenario": asdict(self.scenario), "log": self.log, "step": self.step}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Snapshot":
        content = json.loads(text)
        log = tuple((int(step), tuple(int(i) for i in ids)) for step, ids in content["log"])
        return cls(scenario=Scenario(**content["scenario"]), log=log, step=int(content["step"]))


def rebuild(env: Any, catalogue: Catalogue, snapshot: Snapshot) -> Any:
    """Reset `env` and replay the snapshot; returns the observation of its step.

    Raises:
        GridMismatchError: The episode ends before the step, so the log was made on another grid or data set.
    """
    obs = reset_to(env, snapshot.scenario)
    played = dict(snapshot.log)
    nothing = env.action_space()
    for step in range(snapshot.step):
        ids = played.get(step)
        obs, _, done, info = env.step(catalogue.action(ids, obs) if ids else nothing)
        if done and step + 1 < snapshot.step:
            raise GridMismatchError(
                f"snapshot {snapshot.key()} ends at step {step + 1}, before its own step ({info['exception']})",
                "rebuild it with the environment, data set and version that it was made with",
            )
    return obs
