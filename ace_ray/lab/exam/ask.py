"""`ace llm ask`: one decision as the language model sees it: prompt, reply and replay, round by round."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ace_ray.config.errors import DataError
from ace_ray.config.run import RunSettings
from ace_ray.domain import Outcome, Snapshot, salvageable
from ace_ray.grid.decision_env import DecisionEnv
from ace_ray.grid.scenarios.environment import make_env
from ace_ray.grid.scenarios.scenario_sets import parse
from ace_ray.language.prompts import outcome_text
from ace_ray.refine.builder import Workbench
from ace_ray.refine.case import Attempt, Proposal, Words
from ace_ray.refine.proposers import LanguageProposer
from ace_ray.refine.rounds import make_case, think
from llm_service.adapters import AdapterRef
from llm_service.protocol import LLM, Priority


@dataclass(frozen=True)
class Asked:
    """What was asked and answered: the decision, the bad example with its outcome, and the rounds."""

    snapshot: Snapshot
    played: int
    outcome: Outcome
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
        self.settings = settings
        bench = Workbench(grid, settings.language)
        self.comparator = bench.comparator
        self.words: Words = bench.actor
        decisions, blackout = self._decisions(DecisionEnv(make_env(grid), bench.engine, grid), scenario, step)
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
            if salvageable(self.comparator.outcomes(snapshot, compared), played):
                return snapshot, played
        return decisions[0]

    def ask(self, client: LLM, say: Callable[[str], None], adapter: AdapterRef | None = None) -> Asked:
        """Ask at temperature 0, at most `refine.rounds` rounds; `say` gets the texts as they come."""
        outcome = self.comparator.outcome(self.snapshot, self.played)
        case = make_case(self.comparator, self.snapshot, self.played, {self.played: outcome})
        view = self.words.case(case.obs, case.decision, self.played, outcome)
        for message in self.words.messages(view, case.obs, case.decision):
            say(f"[{message['role']}]\n{message['content']}\n")
        language = self.settings.language.model_copy(update={"temperature": 0.0})
        proposer = LanguageProposer(client, self.words, language, adapter=adapter, priority=Priority.EVALUATION)
        numbers = itertools.count(1)
        rounds = think(
            self.comparator,
            proposer,
            case,
            self.settings.refine.rounds,
            tell=lambda attempt: say(self._told(next(numbers), attempt)),
        )
        return Asked(self.snapshot, self.played, outcome, tuple(rounds))

    def _told(self, number: int, attempt: Attempt) -> str:
        said = attempt.proposal or Proposal(None)
        lines = [f"[round {number}: {said.model}, {said.prompt_tokens} + {said.reply_tokens} tokens]", said.reply]
        ended = attempt.outcome
        if ended is None or attempt.id is None:
            return "\n".join([*lines, f"-> {attempt.error}", ""])
        text = self.words.action_text(attempt.id, self.comparator.observation(self.snapshot))
        horizon = self.settings.grid.compare.horizon
        return "\n".join([*lines, f"-> {text}", f"-> replayed: {outcome_text(ended, horizon)}: {attempt.verdict}", ""])
