"""What a served language model's proposals are worth on held-out decisions (`ace llm eval`).

States come from scenarios that the model never saw in training, at most one per 25 steps, with the outcomes of their
compared set replayed (lab/embedded/labelling.py). These do not depend on the model, so they are made once and kept. On
each state the model is asked as a refiner asks it, with the same grammar, checks, replays and rounds
(refine/rounds.py). Choices that need no model are scored on the same states with the same number of replays:

    first   the listed actions in their order, do-nothing last
    random  the listed actions in random order (mean of eight draws)
    greedy  what the controller itself would play; the same in every round
    left    what the prompt ends with: the least danger among listed actions unlike those that failed
    search  what `refine.refiner=search` proposes: the next best by slot score unlike those that failed

What is legal is decided by the state: cooldowns, dead lines, no power flow. The bad example again is not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ace_ray.agents.greedy import greedy_slot
from ace_ray.config.errors import DataError, GridMismatchError
from ace_ray.config.grid import GridSettings
from ace_ray.config.paths import runs_root
from ace_ray.config.refine import LanguageSettings
from ace_ray.config.run import RunSettings
from ace_ray.domain import Decision, Outcome, Snapshot, best, survival_regret
from ace_ray.finetune.held_out import outcomes_of
from ace_ray.grid.scenarios.scenario import Scenario
from ace_ray.lab.embedded.label_files import read_meta, read_rows
from ace_ray.lab.embedded.labelling import generate
from ace_ray.lab.embedded.labels import LabelPlan
from ace_ray.language.actor import Actor
from ace_ray.language.prompts import AttemptView, what_is_left
from ace_ray.language.view import CaseView
from ace_ray.refine.builder import Workbench
from ace_ray.refine.case import Attempt, Case, Proposal, Words
from ace_ray.refine.proposers import LanguageProposer, next_by_score
from ace_ray.refine.rounds import fault, judge, make_case
from llm_service.adapters import AdapterRef
from llm_service.protocol import LLM, Priority

BASELINES = ("first", "random", "greedy", "left", "search")
_LEAST_EPISODES = 40
_MOST_AN_EPISODE = 6
_DRAWS = 8
_CHUNK = 32  # states that are rebuilt and asked about together
_UNREAD = ("unparsed", "deadline", "refused")

Record = dict[str, Any]
"""One state: where it is from, `pivotal`, the scores of the `model` and of the `baselines`, see `Exam`."""


@dataclass(frozen=True)
class ExamState:
    """A held-out decision and the outcomes of its compared set, by catalogue id."""

    key: str
    kind: str
    snapshot: Snapshot
    played: int
    outcomes: Mapping[int, Outcome]
    pivotal: bool


def exam_plan(grid: GridSettings, states: int) -> LabelPlan:
    """What lab/embedded/labelling.py makes for an exam of so many states: from at least 40 episodes."""
    each = max(1, min(_MOST_AN_EPISODE, states // _LEAST_EPISODES))
    return LabelPlan(grid=grid, seed=1, before_blackout=-(-each // 2), random=each // 2, bootstrap=0, spaced=True)


def make_states(
    settings: RunSettings, split: str, states: int, folder: Path | None, minutes: float, processes: int
) -> tuple[Path, list[ExamState]]:
    """Replays the states that the folder still lacks, and reads them; a later call goes on where this one stopped.

    Args:
        folder: of the states; None: one under the runs root that belongs to this plan.
        minutes: time for replaying; what is there by then is taken.

    Raises:
        DataError: there is none at all; or the folder was begun under another plan, or by another decision engine.
    """
    plan = exam_plan(settings.grid, states)
    if folder is None:
        name = hashlib.sha256(json.dumps(plan.to_json(), sort_keys=True).encode()).hexdigest()[:8]
        folder = runs_root(settings) / "llm-states" / f"{settings.grid.env}-{split}-{name}"
    generate(folder, plan, processes=processes, minutes=minutes, states=states, only=split)
    found = read_states(folder, split, states)
    if not found:
        raise DataError(f"no state of the {split} split was replayed in {minutes:g} minutes", "raise --minutes")
    return folder, found


def read_states(folder: Path, split: str, most: int) -> list[ExamState]:
    """The first `most` labelled decisions of a split."""
    return states_of([row for row in read_rows(folder, "labels") if row["split"] == split])[:most]


def states_of(rows: Sequence[Mapping[str, Any]]) -> list[ExamState]:
    """The replayed decisions among label rows."""
    states: list[ExamState] = []
    for row in rows:
        if row["ids"]:
            states.append(
                ExamState(
                    row["key"],
                    row["kind"],
                    Snapshot.from_json(row["snapshot"], Scenario),
                    int(json.loads(row["played"])["id"]),
                    outcomes_of(row),
                    bool(row["pivotal"]),
                )
            )
    return states


class Exam:
    """Rebuilds the states, asks, replays and scores.

    Args:
        settings: grid, language, rounds.
        folder: the states' folder, made with the same grid settings.

    Raises:
        GridMismatchError: the folder's outcomes were replayed under other settings.
    """

    def __init__(self, settings: RunSettings, folder: Path) -> None:
        self.settings = settings
        bench = Workbench(settings.grid, settings.language, keep=_CHUNK)
        self.comparator, self.actor = bench.comparator, bench.actor
        # the baseline reads our prompt's last line, whatever the model is shown
        self._reader: Words = Actor(bench.engine, bench.actor.facts, LanguageSettings(prompt="ace", danger=True))
        made, context = read_meta(folder)["context"], self.comparator.context()
        if made != context:
            raise GridMismatchError(
                f"the states in {folder} were replayed under {made}, the settings here are {context}",
                "use the grid settings that they were made with, or another folder (--states-dir)",
            )

    def take(
        self, client: LLM, states: Sequence[ExamState], adapter: AdapterRef | None = None, progress: bool = True
    ) -> Iterator[Record]:
        """Asks about every state and yields its record.

        The first round is asked at temperature 0, with the grammar and without; later ones as training asks them.

        Raises:
            ModelError: nothing can be asked. Single refusals and deadlines count as replies that do not parse.
        """
        with tqdm(total=len(states), unit="state", desc="ask", disable=not progress) as bar:
            for at in range(0, len(states), _CHUNK):
                chunk = states[at : at + _CHUNK]
                self.comparator.hold([state.snapshot for state in chunk])
                for record in self._chunk(client, chunk, at, adapter):
                    bar.update()
                    yield record

    def _chunk(
        self, client: LLM, states: Sequence[ExamState], first: int, adapter: AdapterRef | None
    ) -> Iterator[Record]:
        context = self.comparator.context()
        for state in states:
            key = state.snapshot.key()
            self.comparator.load_rows(
                {"context": context, "snapshot": key, "id": i, "outcome": f.to_json()}
                for i, f in state.outcomes.items()
            )
        cases = [make_case(self.comparator, state.snapshot, state.played, state.outcomes) for state in states]

        def proposers(temperature: float, grammar: bool) -> list[LanguageProposer]:
            language = self.settings.language.model_copy(update={"temperature": temperature})
            return [
                LanguageProposer(
                    client,
                    self.actor,
                    language,
                    seed=first + i,
                    adapter=adapter,
                    priority=Priority.EVALUATION,
                    grammar=grammar,
                )
                for i in range(len(cases))
            ]

        nothing: list[list[Attempt]] = [[] for _ in cases]
        free = _ask(proposers(0.0, False), cases, nothing)
        history: list[list[Attempt]] = [[] for _ in cases]
        for number in range(self.settings.refine.rounds):
            temperature = 0.0 if number == 0 else self.settings.language.temperature
            for i, said in _ask(proposers(temperature, True), cases, history).items():
                history[i].append(judge(self.comparator, cases[i], said, history[i]))
        for i, (state, case) in enumerate(zip(states, cases, strict=True)):
            yield self._record(state, case, history[i], free[i], first + i)

    def _record(self, state: ExamState, case: Case, history: Sequence[Attempt], free: Proposal, number: int) -> Record:
        rounds = self.settings.refine.rounds
        horizon = self.settings.grid.compare.horizon
        wrong = fault(self.comparator, case, free)
        first = history[0].proposal or Proposal(None)

        def scored(attempts: Sequence[Attempt]) -> dict[str, float]:
            return score(attempts, state.outcomes, state.played, rounds, horizon)

        return {
            "key": state.key,
            "chronic": state.snapshot.scenario.chronic,
            "episode": state.snapshot.scenario.key(),
            "kind": state.kind,
            "pivotal": state.pivotal,
            "model": scored(history),
            "without_grammar": {"parsed": float(wrong not in _UNREAD), "legal": float(wrong is None)},
            "model_name": first.model,
            "adapter_version": first.adapter_version,
            "prompt_tokens": first.prompt_tokens,
            "reply_tokens": first.reply_tokens,
            "baselines": {
                name: _mean([scored(self._tried(state, order)) for order in orders])
                for name, orders in self._orders(state, number).items()
            },
        }

    def _orders(self, state: ExamState, number: int) -> dict[str, list[list[int]]]:
        """The ids that each baseline tries, in order; several draws of the random one."""
        decision = self.comparator.decision(state.snapshot)
        listed = [i for i in self.comparator.compared_set(decision, state.played) if i not in (0, state.played)]
        nothing = [0] if state.played != 0 else []
        rng = np.random.default_rng((self.settings.seed, number))
        obs = self.comparator.observation(state.snapshot)
        return {
            "first": [listed + nothing],
            "random": [rng.permutation(listed + nothing).tolist() for _ in range(_DRAWS)],
            "greedy": [[int(decision.ids[greedy_slot(decision)])]],
            "left": [_by_last_line(self._reader.case(obs, decision, state.played))],
            "search": [_by_search(decision, state.played, self.settings.refine.rounds)],
        }

    def _tried(self, state: ExamState, order: Sequence[int]) -> list[Attempt]:
        attempts: list[Attempt] = []
        for id in order[: self.settings.refine.rounds]:
            outcome = self.comparator.outcome(state.snapshot, id)
            verdict = self.comparator.verdict(outcome, state.outcomes[state.played])
            attempts.append(Attempt(id, outcome, verdict))
            if verdict == "better":
                break
        return attempts


def score(
    attempts: Sequence[Attempt], outcomes: Mapping[int, Outcome], played: int, rounds: int, horizon: int
) -> dict[str, float]:
    """Scores of what was tried in one state.

    Args:
        attempts: rounds in order, at least one; they end with the first better action.
        outcomes: of the compared set, the played action among them.
        played: id of the bad example.
        rounds: number of rounds told (`better_1` ...); what ended earlier stays.
        horizon: of the comparison, in steps.

    Returns:
        Of the first round: `parsed`, `legal`, `better`, `tie`, `worse` (what cannot be played counts as worse),
        `survival_regret` and `return_regret` (against the best of `outcomes`; what cannot be played is the worst),
        `outside_list` (a playable action that is not in `outcomes`). After r rounds: `better_r`, and
        `survival_regret_r` of what is then kept, the better action or the played one.
    """
    head = attempts[0]
    verdict = head.verdict or "worse"
    known = outcomes.values()
    returned = min(f.ret for f in known) if head.outcome is None else head.outcome.ret
    scores = {
        "parsed": float(head.error not in _UNREAD),
        "legal": float(head.error is None),
        **{name: float(verdict == name) for name in ("better", "tie", "worse")},
        "survival_regret": survival_regret(known, head.outcome, horizon),
        "return_regret": outcomes[best(outcomes)].ret - returned,
        "outside_list": float(head.error is None and head.id not in outcomes),
    }
    for r in range(1, rounds + 1):
        found = next((a.outcome for a in attempts[:r] if a.verdict == "better"), None)
        scores[f"better_{r}"] = float(found is not None)
        scores[f"survival_regret_{r}"] = survival_regret(known, found or outcomes[played], horizon)
    return scores


def _ask(
    proposers: Sequence[LanguageProposer], cases: Sequence[Case], history: Sequence[Sequence[Attempt]]
) -> dict[int, Proposal]:
    """The next proposal of every case that has no better action yet, asked together; by index."""
    open_ = [i for i, tried in enumerate(history) if not tried or tried[-1].verdict != "better"]
    ask: Callable[[int], Proposal] = lambda i: proposers[i].propose(cases[i], history[i])  # noqa: E731
    with ThreadPoolExecutor(max_workers=_CHUNK) as pool:
        return dict(zip(open_, pool.map(ask, open_), strict=True))


def _by_last_line(case: CaseView) -> list[int]:
    """What the prompts of one round after another end with, each having failed."""
    tried: list[AttemptView] = []
    while left := what_is_left(case, tried):
        tried.append(AttemptView(case.candidates[left[0]], None, None))
    return [attempt.action.id for attempt in tried if attempt.action is not None]


def _by_search(decision: Decision, played: int, rounds: int) -> list[int]:
    """What search proposes in one round after another, each having failed."""
    order: list[int] = []
    while len(order) < rounds and (best := next_by_score(decision, {played, *order})) is not None:
        order.append(best)
    return order


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
