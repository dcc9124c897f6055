"""The language model alone in control, as in the paper's tables: asked at every decision, no bad example, no replay.

Rules act while the grid is safe, as for every agent of ours. A reply that cannot be played does nothing. The client is
given: this module knows neither the engine nor Ray.
"""

from __future__ import annotations

from typing import Any

from ace_ray.agents.base import RuleAgent
from ace_ray.config.grid import GridSettings
from ace_ray.config.refine import LanguageSettings
from ace_ray.grid.engine import Decision, DecisionEngine
from ace_ray.grid.observation import GridObservation
from ace_ray.language.actor import Actor
from ace_ray.language.ask import ask_model
from llm_service.protocol import LLM, Priority


class LanguageAgent(RuleAgent):
    """Plays what the model proposes, at temperature 0.

    Args:
        env: read for its spaces and facts, never stepped.
        settings: of the grid.
        client: asks the model.
        language: which prompt, and its limits.

    Attributes:
        asked: decisions so far, over all episodes.
        unusable: those whose reply could not be played (no reply, unparsed, illegal).
    """

    def __init__(self, env: Any, settings: GridSettings, client: LLM, language: LanguageSettings) -> None:
        super().__init__(env.action_space, DecisionEngine(env, settings))
        self.asked = self.unusable = 0
        self._client = client
        self._language = language
        self._actor = Actor.of(env, self.engine, language)

    def decide(self, observation: GridObservation) -> tuple[Decision, int]:
        """The decision, with a slot for the proposal whether or not the engine offered it one."""
        decision = self.engine.decide(observation)
        self.asked += 1
        id = self._proposal(observation, decision)
        if id is not None and id not in decision.ids:
            decision = self.engine.decide(observation, proposals=[id])
        slot = None if id is None else decision.legal_slot(id)
        self.unusable += slot is None
        return decision, slot or 0

    def choose(self, decision: Decision, observation: GridObservation) -> int:
        """The slot of the proposal among those of a given decision; do-nothing where it has none."""
        id = self._proposal(observation, decision)
        return (None if id is None else decision.legal_slot(id)) or 0

    def _proposal(self, observation: GridObservation, decision: Decision) -> int | None:
        case = self._actor.case(observation, decision)
        answer = ask_model(
            self._client,
            self._actor.messages(case, observation, decision),
            self._language,
            schema=self._actor.schema,
            role="actor",
            priority=Priority.EVALUATION,
            temperature=0.0,
        )
        if answer.reply is None or not answer.whole:
            return None
        return self._actor.read(answer.reply.text, case, observation).playable
