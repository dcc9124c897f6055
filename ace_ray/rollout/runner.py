"""The rollout worker as RLlib's EnvRunner: a thin shell around `RolloutWorker` (new API stack).

RLlib builds it from the algorithm's config, of which it reads `run` (RunSettings), `grid` (sizes, catalogue hash),
`replay` (the replay actor) and `start` (how often the run was started). Rows go straight to the replay actor, a few
calls in flight; what `sample` returns is a small report. Weights come by `set_state`, whenever the algorithm publishes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import ray
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env.env_runner import EnvRunner

from ace_ray.config.errors import GridMismatchError
from ace_ray.config.run import RunSettings
from ace_ray.grid.decision_env import DecisionEnv
from ace_ray.grid.engine import Decision, DecisionEngine
from ace_ray.grid.scenarios.environment import make_env
from ace_ray.grid.scenarios.scenario_sets import training_scenarios
from ace_ray.policy.inference import SlotPolicy
from ace_ray.policy.network import SlotNetwork
from ace_ray.rollout.worker import RolloutWorker

STORES_IN_FLIGHT = 4


class RolloutRunner(EnvRunner):  # pragma: no cover - runs in its own process; RolloutWorker is what is tested
    """One rollout worker; see the module."""

    def __init__(self, *, config: Any, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        settings: RunSettings = self.config.run
        self._fragment = settings.rollout
        self._replay = self.config.replay
        self._stores: deque[ray.ObjectRef] = deque()
        torch.set_num_threads(1)
        index = int(self.worker_index or 0)
        # Scenarios, exploration and sampled actions differ between workers and between the starts of a run.
        streams = np.random.SeedSequence([settings.seed, index, int(self.config.start)]).spawn(4)
        scenarios, slots, actions, starts = (int(s.generate_state(1)[0]) for s in streams)
        self._grid = make_env(settings.grid)
        self._engine = DecisionEngine(self._grid, settings.grid)
        if self.config.grid is not None and self.config.grid.catalogue != self._engine.catalogue.hash:
            raise GridMismatchError(
                f"rollout worker {index} sees catalogue {self._engine.catalogue.hash}, the run was started with "
                f"{self.config.grid.catalogue}",
                "install the same versions of grid2op and its data on every node",
            )
        self.env = DecisionEnv(self._grid, self._engine, settings.grid, np.random.default_rng(slots))
        spec = self._engine.spec
        network = SlotNetwork(spec.context_features, spec.slot_features, settings.policy)
        self._policy = SlotPolicy(network)
        self._actions = np.random.default_rng(actions)
        self._worker = RolloutWorker(
            self.env,
            training_scenarios(settings.grid, scenarios),
            self._choose,
            reserve=lambda n: ray.get(self._replay.reserve.remote(n)),
            hard_start=lambda: ray.get(self._replay.hard_start.remote()),
            settings=settings,
            name=f"worker-{index}",
            seed=starts,
        )

    def sample(self, **kwargs: Any) -> dict[str, Any]:
        """Collects a fragment and hands it to the replay.

        Returns:
            'decisions', 'policy_version', 'episodes' (see Fragment), 'given_up' (see Fragment), 'limits'
            (the replay's latest answer, None before the first).

        Raises:
            RunFolderError and the like: what the replay said of earlier rows, so that a full disk ends the run.
        """
        fragment = self._worker.collect(self._fragment.fragment, self._fragment.fragment_s)
        if fragment.transitions or fragment.pending:
            self._stores.append(self._replay.store.remote(fragment.states, fragment.transitions, fragment.pending))
        limits = None
        while self._stores and (len(self._stores) > STORES_IN_FLIGHT or _ready(self._stores[0])):
            limits = ray.get(self._stores.popleft())
        return {
            "decisions": len(fragment.transitions),
            "policy_version": self._worker.policy_version,
            "episodes": fragment.episodes,
            "given_up": fragment.given_up,
            "limits": limits,
        }

    def set_state(self, state: Mapping[str, Any] | ray.ObjectRef) -> None:
        """Takes 'policy' (SlotNetwork.state_dict, NumPy), 'version' and 'memory' (catalogue ids) where given."""
        if isinstance(state, ray.ObjectRef):
            state = ray.get(state)
        if "policy" in state:
            weights = {name: torch.from_numpy(np.array(value)) for name, value in state["policy"].items()}
            self._policy.network.load_state_dict(weights)
        if "version" in state:
            self._worker.policy_version = int(state["version"])
        if "memory" in state:
            self._engine.set_memory(state["memory"])

    def get_state(self, components: Any = None, *, not_components: Any = None, **kwargs: Any) -> dict[str, Any]:
        """What `set_state` takes."""
        policy = {name: value.numpy() for name, value in self._policy.network.state_dict().items()}
        return {"policy": policy, "version": self._worker.policy_version, "memory": list(self._engine.memory)}

    def assert_healthy(self) -> None:
        """Raises when the constructor did not get to its end."""
        assert self._worker is not None, "the rollout worker was not built"

    def get_spaces(self) -> dict[str, tuple[gymnasium.Space, gymnasium.Space]]:
        """Observation and action space of the decision environment."""
        return {DEFAULT_MODULE_ID: (self.env.observation_space, self.env.action_space)}

    def get_metrics(self) -> dict[str, Any]:
        """RLlib's own metrics of this runner; ours travel with the reports of `sample`."""
        return self.metrics.reduce()

    def stop(self) -> None:
        """Waits for rows that are on their way, then closes the environment."""
        ray.wait(list(self._stores), num_returns=len(self._stores), timeout=10.0) if self._stores else None
        self._grid.close()

    def _choose(self, decision: Decision) -> int:
        return self._policy.sample(decision, self._actions)


def _ready(ref: ray.ObjectRef) -> bool:
    return bool(ray.wait([ref], timeout=0)[0])
