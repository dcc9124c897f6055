"""Does the critic find the decision that led to a blackout (`ace llm eval-critic`)?

In a held-out state where the played action survives and others of the compared set die, up to two of these are planted,
one at a time (`planting`): the episode is played as it was up to there, the planted action in its place, and the
controller goes on to the blackout. The critic sees the episode as it sees those of a run. Asked: does it lower the
planted decision? Beside it stands what needs no model, on the same key steps:

    random           as many edits as the critic made, of random key steps with random levels (half of them lower)
    latest_off_best  one edit: the last key step whose action was not the best by prediction
    four_off_best    four edits: the last four such ones, with which the prompt's last line begins
    furthest_behind  one edit: the one that was the most points behind the best
    largest_rise     one edit: the one after which the highest loading rose most

Greedy always plays the best by prediction, so after the planted decision it is the last one that did not, as a rule:
`latest_off_best` is right for that reason alone. So each episode is also played with a controller that goes astray at
some of the later decisions. There, too, the planted decision is the known bad one; a later one may be bad as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from ace_ray.config.run import RunSettings
from ace_ray.lab.embedded.labels import Labeller, LabelPlan
from ace_ray.lab.embedded.planting import Planted, plant
from ace_ray.lab.exam.exam import ExamState
from ace_ray.language.ask import ask_model
from ace_ray.language.critic import EpisodeStep, critic_messages, parse_critic
from ace_ray.language.schema import CRITIC_SCHEMA
from llm_service.adapters import AdapterRef
from llm_service.protocol import LLM, Priority

Record = dict[str, Any]
Rule = Callable[[Sequence[EpisodeStep]], list[EpisodeStep]]

ASTRAY = 0.3
_PLANTED = 2


def latest_off_best(steps: Sequence[EpisodeStep]) -> list[EpisodeStep]:
    """The last step whose action was not the best by prediction; the last one of all where each was."""
    return four_off_best(steps)[:1]


def four_off_best(steps: Sequence[EpisodeStep]) -> list[EpisodeStep]:
    """The last four steps whose action was not the best by prediction; the last one of all where each was."""
    return [step for step in reversed(steps) if step.off_best][:4] or [steps[-1]]


def furthest_behind(steps: Sequence[EpisodeStep]) -> list[EpisodeStep]:
    """The step whose action was the most points behind the best; the first of equals."""
    return [max(steps, key=lambda step: step.behind)]


def largest_rise(steps: Sequence[EpisodeStep]) -> list[EpisodeStep]:
    """The step after which the highest loading rose most; the first of equals. That of the blackout has no loading."""
    return [max(steps, key=lambda step: step.rho_after - step.rho_before if np.isfinite(step.rho_after) else -np.inf)]


RULES: dict[str, Rule] = {
    rule.__name__: rule for rule in (latest_off_best, four_off_best, furthest_behind, largest_rise)
}


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
        """Two records for each planted action, at most two actions a state: one with greedy after it, one with a
        controller that goes astray; what does not end in a blackout gives none."""
        rng = np.random.default_rng(self.settings.seed)
        for state in tqdm(states, unit="state", desc="plant", disable=not progress):
            deadly = [i for i, outcome in state.outcomes.items() if not outcome.survived and i != state.played]
            if not state.outcomes[state.played].survived or not deadly:
                continue
            for id in rng.permutation(deadly)[:_PLANTED].tolist():
                for astray in (0.0, ASTRAY):
                    planted = plant(self.labeller, state.snapshot, id, astray, rng)
                    if planted is not None and planted.blackout:
                        yield {"astray": astray > 0, **self._ask(client, state, planted, adapter)}

    def _ask(self, client: LLM, state: ExamState, planted: Planted, adapter: AdapterRef | None) -> Record:
        settings, language = self.settings.critic, self.settings.language
        keys = planted.keys(settings)
        messages = critic_messages(
            keys,
            settings,
            survived=False,
            steps_played=planted.steps,
            decisions=len(planted.visits),
            total=planted.total,
        )
        record: Record = {
            "key": state.key,
            "chronic": state.snapshot.scenario.chronic,
            "episode": state.snapshot.scenario.key(),
            "decisions_later": len(planted.visits) - 1 - planted.at,
            "shown": float(any(key.step.id == planted.at for key in keys)),
            "model_name": "",
            "adapter_version": 0,
            "parsed": 0.0,
            "edits": 0,
            "dropped": 0,
            "lowered": 0.0,
            "lowered_at_random": 0.0,
            "rules": {
                name: float(any(step.id == planted.at for step in rule([key.step for key in keys])))
                for name, rule in RULES.items()
            },
        }
        answer = ask_model(
            client,
            messages,
            language,
            schema=CRITIC_SCHEMA,
            role="critic",
            adapter=adapter,
            priority=Priority.EVALUATION,
            temperature=0.0,
        )
        if answer.reply is None:
            return record
        reply = answer.reply
        said = parse_critic(reply.text, keys, settings)
        return record | {
            "model_name": reply.model,
            "adapter_version": reply.version,
            "parsed": float(said.error is None),
            "edits": len(said.edits),
            "dropped": said.dropped,
            "lowered": float(any(edit.id == planted.at and edit.level < 0 for edit in said.edits)),
            "lowered_at_random": record["shown"] * 0.5 * len(said.edits) / len(keys),
        }
