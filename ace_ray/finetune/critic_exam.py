"""Does the critic find the decision that led to a blackout (`ace llm eval-critic`)?

In a held-out state where the played action survives and another of the compared set dies, that other one is planted:
the episode is played as it was up to there, the planted action in its place, and the controller goes on to the
blackout. The critic sees the episode as it sees those of a run. Asked: does it lower the planted decision? Beside it
stands what as many edits would have done on random key steps with random levels (half of the levels lower).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from ace_ray.agents.greedy import greedy_slot
from ace_ray.config.run import RunSettings
from ace_ray.finetune.exam import ExamState
from ace_ray.finetune.labels import Labeller, LabelPlan, Visit, episode_steps
from ace_ray.grid.engine import Decision
from ace_ray.language.critic import critic_messages, key_steps, parse_critic
from ace_ray.language.schema import CRITIC_SCHEMA
from llm_service.adapters import AdapterRef
from llm_service.errors import DeadlineExceeded, Refused
from llm_service.protocol import LLM, Priority

Record = dict[str, Any]


class CriticExam:
    """Plants, plays and asks.

    Args:
        settings: grid, critic, language.
    """

    def __init__(self, settings: RunSettings) -> None:
        self.settings = settings
        self.labeller = Labeller(LabelPlan(grid=settings.grid, seed=settings.seed))

    def take(
        self, client: LLM, states: Sequence[ExamState], adapter: AdapterRef | None = None, progress: bool = True
    ) -> Iterator[Record]:
        """One record for every state in which a deadly action can be planted."""
        rng = np.random.default_rng(self.settings.seed)
        for state in tqdm(states, unit="state", desc="plant", disable=not progress):
            deadly = [i for i, fate in state.fates.items() if not fate.survived and i != state.played]
            if not state.fates[state.played].survived or not deadly:
                continue
            visits, blackout, steps = self.plant(state, int(rng.choice(deadly)))
            if blackout:
                yield self._ask(client, state, visits, steps, adapter)

    def plant(self, state: ExamState, id: int) -> tuple[list[Visit], bool, int]:
        """The episode of a state with `id` in the place of what was played there; as `Labeller.follow`."""
        log, there = dict(state.snapshot.log), state.snapshot.step
        engine = self.labeller.engine

        def choose(decision: Decision, step: int) -> Sequence[int]:
            if step < there:
                return log.get(step) or (0,)
            if step == there:
                slots = np.flatnonzero((decision.ids == id) & decision.mask)
                return engine.ids_for(decision, int(slots[0])) if slots.size else (id,)
            return engine.ids_for(decision, greedy_slot(decision))

        return self.labeller.follow(state.snapshot.scenario, choose)

    def _ask(
        self, client: LLM, state: ExamState, visits: Sequence[Visit], steps: int, adapter: AdapterRef | None
    ) -> Record:
        settings, language = self.settings.critic, self.settings.language
        planted = next(i for i, visit in enumerate(visits) if visit.snapshot.step == state.snapshot.step)
        keys = key_steps(episode_steps(visits, True), settings)
        messages = critic_messages(
            keys,
            settings,
            survived=False,
            steps_played=steps,
            decisions=len(visits),
            total=sum(visit.reward for visit in visits),
        )
        record: Record = {
            "key": state.key,
            "chronic": state.snapshot.scenario.chronic,
            "episode": state.snapshot.scenario.key(),
            "decisions_later": len(visits) - 1 - planted,
            "shown": float(any(key.step.id == planted for key in keys)),
            "model_name": "",
            "adapter_version": 0,
            "parsed": 0.0,
            "edits": 0,
            "dropped": 0,
            "lowered": 0.0,
            "lowered_at_random": 0.0,
        }
        try:
            reply = client.ask(
                messages,
                max_tokens=language.max_tokens,
                deadline_s=language.deadline_s,
                schema=CRITIC_SCHEMA,
                role="critic",
                adapter=adapter,
                priority=Priority.EVALUATION,
                temperature=0.0,
            )
        except (DeadlineExceeded, Refused):
            return record
        said = parse_critic(reply.text, keys, settings)
        return record | {
            "model_name": reply.model,
            "adapter_version": reply.version,
            "parsed": float(said.error is None),
            "edits": len(said.edits),
            "dropped": said.dropped,
            "lowered": float(any(edit.id == planted and edit.level < 0 for edit in said.edits)),
            "lowered_at_random": record["shown"] * 0.5 * len(said.edits) / len(keys),
        }
