"""A trained policy as an agent: the argmax of its logits, and the same with a check by `simulate`."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any, Self

from ace_ray.agents.base import RuleAgent
from ace_ray.agents.greedy import recheck
from ace_ray.grid.engine import Decision, DecisionEngine
from ace_ray.grid.observation import GridObservation
from ace_ray.policy import checkpoint
from ace_ray.policy.inference import SlotPolicy


class PolicyAgent(RuleAgent):
    """Plays the most probable legal slot; at iteration 0 that is greedy's."""

    def __init__(self, action_space: Any, engine: DecisionEngine, policy: SlotPolicy) -> None:
        super().__init__(action_space, engine)
        self.policy = policy

    @classmethod
    def load(cls, action_space: Any, engine: DecisionEngine, folder: str | os.PathLike[str], env_name: str) -> Self:
        """Loads a checkpoint or export folder; its proposal memory becomes the engine's.

        Args:
            action_space: of the environment to play in.
            engine: decision engine of that environment; not to be shared with agents of another memory.
            folder: holds `policy.safetensors` and `policy.json`.
            env_name: name of that environment.

        Raises:
            GridMismatchError: made for another environment, catalogue or engine spec.
            AceError: missing or torn.
        """
        network, card = checkpoint.load(folder)
        card.check(env_name, engine.catalogue.hash, asdict(engine.spec))
        engine.set_memory(card.memory)
        return cls(action_space, engine, SlotPolicy(network))

    def choose(self, decision: Decision, observation: GridObservation) -> int:
        """The first of the slots of highest logit."""
        return self.policy.best(decision)


class PolicyChecked(PolicyAgent):
    """Plays the best of the policy's 20 most probable slots after one `simulate` of each."""

    def choose(self, decision: Decision, observation: GridObservation) -> int:
        """See `ace_ray.agents.greedy.recheck`."""
        return recheck(self.engine, decision, observation, self.policy.logits(decision))
