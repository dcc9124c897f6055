"""`ace llm ask`: one decision as the language model sees it: prompt, reply and replay, round by round."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ace_ray.agents.comparator import Comparator
from ace_ray.agents.fate import Fate
from ace_ray.agents.refinement import Attempt
from ace_ray.config.errors import DataError
from ace_ray.config.run import RunSettings
from ace_ray.grid.decision_env import DecisionEnv
from ace_ray.grid.engine import DecisionEngine
from ace_ray.grid.environment import make_env
from ace_ray.grid.scenario_sets import parse
from ace_ray.grid.snapshot import Snapshot
from ace_ray.language.actor import Actor, outcome
from ace_ray.language.describe import facts_of
from ace_ray.language.prompts import outcome_text
from ace_ray.language.schema import ACTOR_SCHEMA
from llm_service.adapters import AdapterRef
from llm_service.protocol import LLM


@dataclass(frozen=True)
class Asked:
    """What was asked and answered: the decision, the bad example with its fate, and the rounds."""

    snapshot: Snapshot
    played: int
    fate: Fate
    rounds: tuple[Attempt, ...]

    @property
    def accepted(self) -> bool:
        """Whether some round was confirmed better."""
        return any(attempt.verdict == "better" for attempt in self.rounds)


class Question:
    """One decision of a scenario under greedy, ready to be asked about.

    Args:
        settings: grid, language, refine.
        scenario: a scenario set; its first scenario is played.
        step: the first decision from this environment step on; None: the latest decision before the blackout that a
            replay of the compared set can still save (or, where nothing of the kind is found, the first decision).

    Raises:
        DataError: the scenario has no decision from that step on.
    """

    def __init__(self, settings: RunSettings, scenario: str, step: int | None) -> None:
        grid = settings.grid
        env = make_env(grid)
        self.settings = settings
        self.engine = DecisionEngine(env, grid, settings.seed)
        self.comparator = Comparator(make_env(grid), self.engine, grid)
        facts = facts_of(env, self.engine.security.lines, grid)
        self.actor = Actor(self.engine.catalogue, facts, settings.language)
        decisions, blackout = self._decisions(DecisionEnv(env, self.engine, grid), scenario, step)
        self.snapshot, self.played = decisions[0]
        if step is None and blackout:
            self.snapshot, self.played = self._salvageable(decisions[-settings.refine.lookback :])

    def _decisions(self, play: DecisionEnv, scenario: str, step: int | None) -> tuple[list[tuple[Snapshot, int]], bool]:
        """Greedy's decisions from `step` on (only the first where a step is given), and whether the grid went black."""
        chosen = parse(scenario, self.settings.grid).scenarios[0]
        _, info = play.reset(options={"scenario": chosen})
        found: list[tuple[Snapshot, int]] = []
        over = False
        while info["decision"] is not None and not (found and step is not None):
            slot = int(np.argmax(info["decision"].score))
            if step is None or info["step"] >= step:
                found.append((play.snapshot(), int(info["decision"].ids[slot])))
            _, _, over, _, info = play.step(slot)
        if not found:
            raise DataError(
                f"scenario {chosen.key()} has no decision from step {step or 0} on: it ends at step {info['step']}",
                "choose an earlier --step or another scenario",
            )
        return found, over

    def _salvageable(self, decisions: list[tuple[Snapshot, int]]) -> tuple[Snapshot, int]:
        self.comparator.hold([snapshot for snapshot, _ in decisions])
        for snapshot, played in reversed(decisions):
            compared = self.comparator.compared_set(self.comparator.decision(snapshot), played)
            if self.comparator.salvageable(self.comparator.fates(snapshot, compared), played):
                return snapshot, played
        return decisions[0]

    def ask(
        self, client: LLM, say: Callable[[str], None], adapter: AdapterRef | None = None, temperature: float = 0.0
    ) -> Asked:
        """Ask at most `refine.rounds` rounds; `say` gets the texts as they come."""
        obs, decision = self.comparator.observation(self.snapshot), self.comparator.decision(self.snapshot)
        fate = self.comparator.fate(self.snapshot, self.played)
        case = self.actor.case(obs, decision, self.played, fate)
        for message in self.actor.messages(case, obs, decision):
            say(f"[{message['role']}]\n{message['content']}\n")
        rounds: list[Attempt] = []
        language = self.settings.language
        while len(rounds) < self.settings.refine.rounds and not (rounds and rounds[-1].verdict == "better"):
            reply = client.ask(
                self.actor.messages(case, obs, decision, rounds),
                max_tokens=language.max_tokens,
                deadline_s=language.deadline_s,
                schema=ACTOR_SCHEMA,
                role="actor",
                adapter=adapter,
                temperature=temperature if not rounds else max(temperature, language.temperature),
                seed=len(rounds),
            )
            say(f"[round {len(rounds) + 1}: {reply.model}, {reply.prompt_tokens} + {reply.reply_tokens} tokens]")
            say(reply.text)
            rounds.append(self._judge(reply.text, case, obs, fate, rounds))
            say(self._told(rounds[-1], case) + "\n")
        return Asked(self.snapshot, self.played, fate, tuple(rounds))

    def _judge(self, text: str, case: Any, obs: Any, fate: Fate, rounds: list[Attempt]) -> Attempt:
        resolved = self.actor.read(text, case, obs, rounds)
        if resolved.playable is None:
            return Attempt(resolved.id, None, None, resolved.error)
        ended = self.comparator.fate(self.snapshot, resolved.playable)
        return Attempt(resolved.playable, ended, self.comparator.verdict(ended, fate))  # type: ignore[arg-type]

    def _told(self, attempt: Attempt, case: Any) -> str:
        ended = outcome(attempt.fate)
        if ended is None:
            return f"-> {attempt.error}"
        return f"-> replayed: {outcome_text(ended, case.facts.horizon)}: {attempt.verdict}"
