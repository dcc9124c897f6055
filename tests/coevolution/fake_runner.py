"""A rollout runner on a tiny fake decision env: what an ACE run needs of a runner, without a power grid."""

import os
from types import SimpleNamespace
from typing import Any

import numpy as np
import ray
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.env import INPUT_ENV_SPACES
from ray.rllib.env.env_runner import EnvRunner

from ace_ray.config.errors import GridMismatchError
from ace_ray.config.learning import PolicySettings
from ace_ray.grid.scenarios.scenario import Scenario
from ace_ray.policy.inference import SlotPolicy
from ace_ray.policy.network import SlotNetwork
from ace_ray.schema import States

K, F, C, LENGTH = 4, 6, 3, 5
SCENARIO = Scenario("fake", "fake", "fake", env_seed=0)


class FakeDecisionEnv:
    """Episodes of `LENGTH` decisions; slot 0 has the best score, slot 1 the best reward, slot 3 ends in a blackout."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.t = 0

    def reset(self) -> SimpleNamespace:
        self.t = 0
        return self.decision()

    def decision(self) -> SimpleNamespace:
        return SimpleNamespace(
            context=np.array([self.t, 1.0, self.rng.normal()], np.float32),
            slots=np.concatenate([np.eye(K), self.rng.normal(size=(K, F - K))], 1).astype(np.float32),
            mask=np.array([True, True, self.t % 2 == 0, True]),
            score=np.array([-0.99, -1.0, -1.0, -1.0], np.float32),
            ids=np.arange(K, dtype=np.int32),
        )

    def step(self, slot: int) -> tuple[SimpleNamespace, float, bool, bool]:
        self.t += 1
        blackout = slot == 3
        return self.decision(), -1.0 if blackout else (0.5 if slot == 1 else 0.0), blackout, self.t >= LENGTH


class FakeRunner(EnvRunner):
    """Stores its rows in the replay actor and returns a report, as RolloutRunner does."""

    def __init__(self, *, config: Any, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        if os.path.exists(os.path.join(str(config.folder), "mismatch")):
            raise GridMismatchError("another catalogue on this node", "install the same versions")
        self.replay = config.replay
        self.rng = np.random.default_rng([config.run.seed, config.start, self.worker_index])
        self.env = FakeDecisionEnv(self.rng)
        self.policy: SlotPolicy | None = None
        self.version = -1
        self.decision = self.env.reset()
        self.state_id = -1
        self.episode = 0

    def assert_healthy(self) -> None:
        assert self.replay is not None

    def get_spaces(self) -> dict[str, Any]:
        spaces = (self.config.observation_space, self.config.action_space)
        return {INPUT_ENV_SPACES: spaces, DEFAULT_MODULE_ID: spaces}

    def get_state(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {"version": self.version}

    def set_state(self, state: dict[str, Any]) -> None:
        network = SlotNetwork(C, F, PolicySettings(**self.config.run.policy.model_dump()))
        network.load_state_dict({k: torch.as_tensor(v) for k, v in state["policy"].items()})
        self.policy, self.version = SlotPolicy(network), state["version"]

    def get_metrics(self) -> dict[str, Any]:
        return {}

    def stop(self) -> None:
        pass

    def sample(self, **_: Any) -> dict[str, Any]:
        failure = os.path.join(str(self.config.folder), "fail")
        if os.path.exists(failure):
            raise RuntimeError("the fake grid is broken")
        first = ray.get(self.replay.reserve.remote(3 * 8))
        states, rows, episodes = [], [], []
        if self.state_id < 0:
            self.state_id = first
        for i in range(8):
            state_id, next_id = first + 2 * i, first + 2 * i + 1
            states.append(self._state(state_id))
            slot = self.policy.sample(self.decision, self.rng)
            self.decision, reward, blackout, end = self.env.step(slot)
            states.append(self._state(next_id))
            rows.append(
                {
                    "id": first + 16 + i, "source": "rl", "scenario": SCENARIO.to_json(),
                    "state_id": state_id, "next_id": -1 if blackout else next_id,
                    "episode": f"{self.worker_index}-{self.config.start}-{self.episode}", "slot": slot,
                    "catalogue_id": slot, "reward": reward, "discount": 0.9, "terminated": blackout,
                    "truncated": end and not blackout, "policy_version": self.version,
                }
            )  # fmt: skip
            if blackout or end:
                episodes.append({"survival": self.env.t / LENGTH, "blackout": blackout})
                self.decision = self.env.reset()
                self.episode += 1
        ray.get(self.replay.store.remote(States.concat(states), rows))
        return {"decisions": len(rows), "episodes": episodes, "policy_version": self.version}

    def _state(self, state_id: int) -> States:
        return States.of(state_id, self.decision)
