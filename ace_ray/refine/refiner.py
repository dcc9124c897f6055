"""A refiner without Ray: thinks twice about decisions, and believes only what the environment shows.

For each pending decision: rebuild the state, find out whether it could have gone better (the look-back walk), ask the
proposer, replay the proposal over the common horizon, and feed back what happened, at most `rounds` times.

    reason     asked about when
    lookback   the played action dies and one of the compared set C survives (salvageable); bisection finds the latest
               such decision, and the walk back from it ends where the played action survives: earlier was no mistake
    advantage  one of C is better than the played action
    seed       as lookback; such snapshots are shipped, their played action is stored as their original
    paper      always (r < r_low is all that trigger=paper asks)

The refined transition is what the environment did when the proposed action was played in the original state, over the
horizon of the comparison or up to the next decision (`refine.span`). Losing rounds and the bad example become rows as
well, or Q learns from luck alone (docs/method.md).
"""

from __future__ import annotations

import json
import logging
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ace_ray.config.run import RunSettings
from ace_ray.domain import Decision, Domain, Outcome, Snapshot, Transition, best, salvageable
from ace_ray.refine.case import Attempt, Case, Proposal, Proposer
from ace_ray.refine.comparator import Comparator
from ace_ray.refine.rounds import judge, make_case
from ace_ray.replay.episodes import log_to_json
from ace_ray.replay.mixing import validity
from ace_ray.replay.pending import PendingRefinement, RefinementResult
from ace_ray.replay.rows import IdBlock, transition_row
from ace_ray.schema import States

log = logging.getLogger(__name__)


class Stopped(Exception):  # noqa: N818 - not an error: the run ends
    """Refining was told to stop; what is unfinished stays pending."""


class Refiner:
    """See the module.

    Args:
        domain: says which errors cost an item only.
        comparator: on an environment and engine of its own; the engine's proposal memory stays empty, so that all
            refiners compare by the same continuation whenever they do.
        proposer: who proposes.
        settings: of the run.
        reserve: gives away ids (ReplayCore.reserve).
        stopped: asked between replays; True ends the work.
    """

    def __init__(
        self,
        domain: Domain,
        comparator: Comparator,
        proposer: Proposer,
        settings: RunSettings,
        reserve: Callable[[int], int],
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._faults = domain.faults
        self.comparator = comparator
        self.proposer = proposer
        self._settings = settings
        self._refine = settings.refine
        self._source = settings.refine.refiner
        self._budget = self._refine.rounds if self._source == "llm" else self._refine.proposals
        self._ids = IdBlock(reserve, block=32)
        self._stopped = stopped

    def refine(self, items: Sequence[PendingRefinement]) -> Iterator[RefinementResult]:
        """Works through what the queue gave out: one decision, or all before one blackout, the last one first.

        Yields one result an item as soon as it is known; ends early when told to stop. An environment that fails costs
        the item at hand; a proposer that cannot be asked at all raises.
        """
        try:
            self.comparator.hold([item.snapshot for item in items])
        except self._faults as error:
            log.warning("refinement: a chain cannot be rebuilt at once: %s", error)
        try:
            if len(items) > 1:
                yield from self._chain(items)
            else:
                for item in items:
                    yield self._guarded(item, self._one)
        except Stopped:
            return

    def _guarded(
        self, item: PendingRefinement, work: Callable[[PendingRefinement], RefinementResult]
    ) -> RefinementResult:
        try:
            return work(item)
        except self._faults as error:
            log.warning("refinement %d failed: %s", item.id, error)
            return RefinementResult(item, "failed", error=f"{type(error).__name__}: {error}")

    # --- the decisions before one blackout --------------------------------------------------------------------------

    def _chain(self, items: Sequence[PendingRefinement]) -> Iterator[RefinementResult]:
        """The decisions before one blackout, the last one first.

        The later a decision, the less can be saved: the latest that something can still save is found by bisection.
        From there back each is thought over, until the played action survives (what is earlier was no mistake) or
        `refine.walk` decisions were asked about.
        """
        hopeless: dict[int, RefinementResult] = {}
        first = self._latest_hope(items, hopeless)
        for i, item in enumerate(items[:first]):
            yield hopeless.get(i, RefinementResult(item, "skipped"))
        asked, over = 0, False
        for item in items[first:]:
            if over:
                yield RefinementResult(item, "skipped")
                continue
            result = self._guarded(item, self._one)
            asked += bool(result.rounds)
            over = result.status == "survived" or asked >= self._refine.walk
            yield result

    def _latest_hope(self, items: Sequence[PendingRefinement], hopeless: dict[int, RefinementResult]) -> int:
        """Index of the latest decision that is not lost whatever is played; their number where all are.

        Args:
            hopeless: gets the results of those that were looked at and are lost, by index.
        """

        def hope(i: int) -> bool:
            result = self._guarded(items[i], lambda item: self._prospect(item)[0])
            if result.status in ("unsalvageable", "failed"):
                hopeless[i] = result
            return i not in hopeless

        return bisect_left(range(len(items)), True, key=hope)

    def _prospect(self, item: PendingRefinement) -> tuple[RefinementResult, dict[int, Outcome]]:
        """Whether the played action survives or another of C does, and the outcomes looked at, up to such a one."""
        outcomes = {item.played: self._outcome(item.snapshot, item.played)}
        if outcomes[item.played].survived:
            return RefinementResult(item, "survived"), outcomes
        for id in self.comparator.compared_set(self.comparator.decision(item.snapshot), item.played):
            outcomes[id] = self._outcome(item.snapshot, id)
            if outcomes[id].survived:
                return RefinementResult(item, "salvageable", salvageable=True), outcomes
        advantage = self._advantage(outcomes, item.played)
        return RefinementResult(item, "unsalvageable", advantage=advantage), outcomes

    # --- is there anything to gain? ---------------------------------------------------------------------------------

    def _one(self, item: PendingRefinement) -> RefinementResult:
        if item.reason == "paper":
            return self._ask(item, {item.played: self._outcome(item.snapshot, item.played)}, salvageable=False)
        if item.reason == "advantage":
            compared = self.comparator.compared_set(self.comparator.decision(item.snapshot), item.played)
            outcomes = {id: self._outcome(item.snapshot, id) for id in (item.played, *compared)}
            if self._advantage(outcomes, item.played) == 0.0:
                return RefinementResult(item, "no_gap", advantage=0.0)
            return self._ask(item, outcomes, salvageable=salvageable(outcomes, item.played))
        prospect, outcomes = self._prospect(item)
        return self._ask(item, outcomes, salvageable=True) if prospect.salvageable else prospect

    def _outcome(self, snapshot: Snapshot, id: int) -> Outcome:
        if self._stopped():
            raise Stopped
        return self.comparator.outcome(snapshot, id)

    def _advantage(self, outcomes: dict[int, Outcome], played: int) -> float:
        """Return of the played action minus that of the best cached alternative; 0 when none is better."""
        leader = best(outcomes)
        if leader == played or self.comparator.verdict(outcomes[leader], outcomes[played]) != "better":
            return 0.0
        return outcomes[played].ret - outcomes[leader].ret

    # --- ask, replay, ask again ---------------------------------------------------------------------------------------

    def _ask(self, item: PendingRefinement, outcomes: dict[int, Outcome], salvageable: bool) -> RefinementResult:
        played = item.played
        case = make_case(self.comparator, item.snapshot, played, outcomes, item.reason, item.distance)
        # Of a decision that was not played in this run there is no row yet; over the horizon, of none.
        replayed = item.parent_id < 0 or self._refine.span == "horizon"
        original = self._play(case, played) if replayed else None
        reward = original.reward if original is not None else item.reward
        history: list[Attempt] = []
        played_out: list[Transition | None] = []
        accepted = False
        while len(history) < self._budget and not accepted:
            if self._stopped():
                raise Stopped
            attempt, transition = self._try(case, self.proposer.propose(case, history), history)
            history.append(attempt)
            played_out.append(transition)
            accepted = transition is not None and self._accepts(attempt, transition, reward)
        survivor = any(attempt.outcome is not None and attempt.outcome.survived for attempt in history)
        result = RefinementResult(
            item,
            "accepted" if accepted else "rejected",
            salvageable=salvageable or (not case.outcome.survived and survivor),
            advantage=self._advantage(outcomes, played),
            rounds=[self._round(case, attempt) for attempt in history],
        )
        self._add_rows(result, case, history, played_out, original)
        return result

    def _try(self, case: Case, proposal: Proposal, history: Sequence[Attempt]) -> tuple[Attempt, Transition | None]:
        """Checks a proposal, replays it and plays it; what cannot be played costs the round, nothing more."""
        attempt = judge(self.comparator, case, proposal, history)
        if attempt.outcome is None or attempt.id is None:
            return attempt, None
        return attempt, self._play(case, attempt.id)

    def _play(self, case: Case, id: int) -> Transition:
        """Plays an action in a copy of the environment, as far as `refine.span` says."""
        simulator = self.comparator.simulator
        least = simulator.compare.horizon if self._refine.span == "horizon" else 1
        return simulator.transition(case.snapshot, case.decision, id, least)

    def _accepts(self, attempt: Attempt, transition: Transition, reward: float) -> bool:
        """Whether the rounds end here: a valid action; for the paper's validity, a reward above the original's."""
        mode = self._settings.mixing.validity
        if mode == "paper":
            return not transition.reward <= reward
        assert attempt.verdict is not None and attempt.outcome is not None  # it was replayed: there is a transition
        return validity(mode, attempt.verdict, attempt.outcome.survived, transition.reward, transition.terminated)

    # --- rows ---------------------------------------------------------------------------------------------------------

    def _round(self, case: Case, attempt: Attempt) -> dict[str, Any]:
        proposal = attempt.proposal or Proposal(None)
        found = {
            "catalogue_id": -1 if attempt.id is None else attempt.id,
            "verdict": attempt.verdict or "",
            "error": attempt.error or "",
            "played": case.played,
            "played_survived": case.outcome.survived,
            "played_steps": case.outcome.steps,
            "played_ret": case.outcome.ret,
            "refiner": self._source,
            "model": proposal.model,
            "adapter_version": proposal.adapter_version,
            "prompt": proposal.prompt,
            "reply": proposal.reply,
            "prompt_tokens": proposal.prompt_tokens,
            "reply_tokens": proposal.reply_tokens,
            "seconds": proposal.seconds,
        }
        if proposal.case:
            found["case"] = proposal.case
            found["compared"] = json.dumps({id: outcome.to_json() for id, outcome in case.compared.items()})
        if attempt.outcome is not None:
            found |= {"survived": attempt.outcome.survived, "steps": attempt.outcome.steps, "ret": attempt.outcome.ret}
        return found

    def _add_rows(
        self,
        result: RefinementResult,
        case: Case,
        history: Sequence[Attempt],
        played_out: Sequence[Transition | None],
        original: Transition | None,
    ) -> None:
        """Transitions of all rounds that were played. They share one state, whose slots hold every proposal."""
        tried = [transition.id for transition in played_out if transition is not None]
        if not tried:
            return
        decision = self.comparator.simulator.decide(case.obs, proposals=[case.played, *tried])
        state_id, parent_id = self._ids.take(), result.pending.parent_id
        result.states.append(States.of(state_id, decision))
        common = {
            "refiner": self._source,
            "lead": log_to_json(case.snapshot.log),
            **self.comparator.simulator.facts(case.obs),
        }
        if original is not None:
            row = self._row(result, case, decision, state_id, original, {**common, "source": "replay"})
            if row is not None and parent_id < 0:
                parent_id = row["id"]
        # The paper stores what the last round brought, better or not, and leaves it to I_v whether it is drawn.
        keep = result.status == "accepted" or self._settings.mixing.validity == "paper"
        for number, (attempt, transition) in enumerate(zip(history, played_out, strict=True), 1):
            if transition is None or attempt.outcome is None or attempt.proposal is None or attempt.verdict is None:
                continue
            last = number == len(history)
            judged = validity(
                self._settings.mixing.validity,
                attempt.verdict,
                attempt.outcome.survived,
                transition.reward,
                transition.terminated,
            )
            more = {
                **common,
                "source": self._source,
                "parent_id": parent_id,
                "round": number,
                "prompt": attempt.proposal.prompt,
                "reply": attempt.proposal.reply,
                "model": attempt.proposal.model,
                "adapter_version": attempt.proposal.adapter_version,
                "verdict": attempt.verdict,
                "valid": judged and last and keep,
                "advantage": attempt.outcome.ret - case.outcome.ret,
            }
            row = self._row(result, case, decision, state_id, transition, more)
            if row is not None and last and keep:
                result.refined = len(result.transitions) - 1

    def _row(
        self,
        result: RefinementResult,
        case: Case,
        decision: Decision,
        state_id: int,
        transition: Transition,
        more: dict[str, Any],
    ) -> dict[str, Any] | None:
        slot = decision.legal_slot(transition.id)
        if slot is None:  # the engine masks it here (its power flow does not converge): no row that a policy could play
            return None
        next_id = -1
        if transition.following is not None:
            next_id = self._ids.take()
            result.states.append(States.of(next_id, transition.following))
        row = transition_row(
            id=self._ids.take(),
            state_id=state_id,
            next_id=next_id,
            snapshot=case.snapshot,
            decision=decision,
            slot=slot,
            reward=transition.reward,
            terminated=transition.terminated,
            truncated=transition.truncated,
            info=transition.info,
            episode=f"refinement-{result.pending.id}",
            **more,
        )
        result.transitions.append(row)
        return row
