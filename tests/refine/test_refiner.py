"""A refiner on the real grid: what it believes is what the environment shows."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest

from ace_ray.config.run import RunSettings
from ace_ray.domain import Outcome, salvageable
from ace_ray.grid.decision_env import DecisionEnv
from ace_ray.grid.domain import GridDomain
from ace_ray.grid.engine import Decision
from ace_ray.grid.scenarios.environment import make_env
from ace_ray.refine.builder import make_comparator
from ace_ray.refine.case import Proposal
from ace_ray.refine.proposers import RandomProposer, SearchProposer, next_by_score
from ace_ray.refine.refiner import Refiner
from ace_ray.replay.core import ReplayCore
from ace_ray.replay.pending import PendingRefinement, RefinementResult
from ace_ray.replay.shards import LogIdentity
from ace_ray.schema import States, StateShape
from tests.rollout.test_worker import blackouts

pytestmark = pytest.mark.unit


class Shown(SearchProposer):
    """Search that says what it was shown, as a language model does."""

    def propose(self, case, history):
        return replace(super().propose(case, history), case="" if history else "what was shown")


@pytest.fixture(scope="module")
def settings(grid_settings):
    grid = grid_settings.model_copy(update={"compare": grid_settings.compare.model_copy(update={"horizon": 40})})
    return RunSettings(
        grid=grid,
        mixing={"ramp": 1},
        refine={"refiner": "search", "lookback": 6, "rounds": 3, "proposals": 3, "span": "decision"},
    )


@pytest.fixture(scope="module")
def comparator(engine, settings):
    env = make_env(settings.grid)
    yield make_comparator(env, engine, settings.grid)
    env.close()


@pytest.fixture(scope="module")
def refined(env, engine, grid_settings, comparator, settings):
    """The first blackout of a random policy of which something could have been saved: pending decisions (the last one
    first), rows, states, and what a refiner with search made of them."""
    for _, states, rows, pending, _ in blackouts(env, engine, grid_settings, lookback=6):
        items = [item for item in pending if item.chain == rows[0]["episode"]]
        ids = itertools.count(10_000, 1000)
        refiner = Refiner(GridDomain(), comparator, Shown(), settings, lambda n, ids=ids: next(ids))
        found = list(refiner.refine(items))
        if any(result.status == "accepted" for result in found):
            return items, rows, states, found
    raise AssertionError("no blackout of 40 random policies could have been avoided")


@pytest.fixture(scope="module")
def chain(refined):
    return refined[:3]


@pytest.fixture(scope="module")
def results(refined):
    return refined[3]


def test_the_walk_back_asks_about_salvageable_decisions_only(comparator, results):
    asked = [result for result in results if result.rounds]
    assert asked, "the chain holds a decision that could have been saved"
    statuses = [result.status for result in results]
    survived = statuses.index("survived") if "survived" in statuses else len(statuses)
    for result in results[:survived]:
        item = result.pending
        if result.status == "skipped":  # bisection passed it over
            continue
        compared = comparator.compared_set(comparator.decision(item.snapshot), item.played)
        outcomes = comparator.outcomes(item.snapshot, compared)
        assert not outcomes[item.played].survived
        assert bool(result.rounds) == result.salvageable == salvageable(outcomes, item.played)
    assert {result.status for result in results[survived + 1 :]} <= {"skipped"}


def test_what_is_accepted_is_better_over_the_horizon_and_what_is_rejected_is_not(comparator, results):
    for result in [r for r in results if r.rounds]:
        item = result.pending
        bad = comparator.outcome(item.snapshot, item.played)
        verdicts = [
            comparator.verdict(comparator.outcome(item.snapshot, row["catalogue_id"]), bad) for row in result.rounds
        ]
        assert [row["verdict"] for row in result.rounds] == verdicts
        assert "better" not in verdicts[:-1] and (result.status == "accepted") == (verdicts[-1] == "better")
        assert (result.refined == len(result.transitions) - 1) == (result.status == "accepted")


def test_the_first_round_keeps_what_was_shown_and_what_the_look_back_had_found_out(comparator, results):
    for result in [r for r in results if r.rounds]:
        first, *later = result.rounds
        assert first["case"] == "what was shown" and not any("case" in row or "compared" in row for row in later)
        compared = {int(id): outcome for id, outcome in json.loads(first["compared"]).items()}
        assert compared == {id: comparator.outcome(result.pending.snapshot, id).to_json() for id in compared}
        assert {outcome[0] for outcome in compared.values()} == {0, 1}  # salvageable: the played one dies, one survives


def test_refined_rows_are_what_the_environment_did_from_the_original_state(env, engine, comparator, settings, results):
    plain = DecisionEnv(env, engine, settings.grid)
    for result in [r for r in results if r.rounds][:2]:
        states = {int(state.id[0]): state for state in result.states}
        for row, attempt in zip(result.transitions, result.rounds, strict=True):
            snapshot = result.pending.snapshot
            plain.reset(options={"snapshot": snapshot})
            obs, reward, terminated, truncated, info = plain.play(
                engine.together(comparator.decision(snapshot), row["catalogue_id"])
            )
            assert (row["reward"], row["discount"], row["steps"]) == (reward, info["discount"], info["steps"])
            assert (row["terminated"], row["truncated"]) == (terminated, truncated)
            assert row["catalogue_id"] == attempt["catalogue_id"] and row["parent_id"] == result.pending.parent_id
            state = states[row["state_id"]]
            assert state.ids[0, row["slot"]] == row["catalogue_id"] and state.mask[0, row["slot"]]
            assert row["advantage"] == pytest.approx(attempt["ret"] - attempt["played_ret"])
            if not terminated and not truncated:
                np.testing.assert_array_equal(states[row["next_id"]].slots[0], obs["slots"])


def test_rows_over_the_horizon_hold_what_the_replay_showed(env, engine, comparator, settings, results):
    """One row for the bad example and one for each proposal, against a plain loop of decisions."""
    item = next(r.pending for r in results if r.status == "accepted")
    far = settings.model_copy(update={"refine": settings.refine.model_copy(update={"span": "horizon"})})
    ids = itertools.count(10_000, 1000)
    (result,) = Refiner(GridDomain(), comparator, SearchProposer(), far, lambda n: next(ids)).refine([item])
    plain, horizon = DecisionEnv(env, engine, settings.grid), settings.grid.compare.horizon
    assert [row["source"] for row in result.transitions[:1]] == ["replay"] and len(result.transitions) > 1
    for row in result.transitions:
        outcome = comparator.outcome(item.snapshot, row["catalogue_id"])
        assert row["terminated"] if not outcome.survived else row["steps"] >= min(horizon, outcome.steps)
        _, info = plain.reset(options={"snapshot": item.snapshot})
        played = engine.together(comparator.decision(item.snapshot), row["catalogue_id"])
        obs, _, over, ended, info = plain.play(played)
        rewards = list(info["rewards"])
        while not (over or ended) and len(rewards) < horizon:
            obs, _, over, ended, info = plain.step(int(obs["score"].argmax()))
            rewards += info["rewards"]
        gamma = settings.grid.reward.gamma
        assert row["reward"] == pytest.approx(sum(gamma**i * r for i, r in enumerate(rewards)))
        assert (row["steps"], row["terminated"], row["truncated"]) == (len(rewards), over, ended)
        assert row["discount"] == pytest.approx(gamma ** len(rewards))
        assert outcome.survived or outcome.steps == len(rewards)
        assert row.get("parent_id", item.parent_id) == item.parent_id


def test_results_go_into_the_replay_and_come_back_on_resume(tmp_path, engine, settings, chain, results):
    items, rows, states = chain
    identity = LogIdentity(settings.grid.env, engine.catalogue.hash, StateShape.of(engine.spec))
    core = ReplayCore(tmp_path, settings, identity, GridDomain())
    core.store(States.concat(list(states.values())), rows, items)
    assert [item.id for item in core.pop("refiner-0")] == [item.id for item in items]
    for result in results:
        core.finish("refiner-0", result)
    stats = core.stats()
    played = sum(len(result.transitions) for result in results)
    accepted = sum(result.status == "accepted" for result in results)
    assert stats["sources"] == {"rl": len(rows), "search": played} and stats["table"]["lost"] == 0
    assert stats["table"]["refined"] == stats["refinement"]["accepted"] == accepted
    assert stats["table"]["transitions"] == len(rows) + played - accepted
    if accepted:
        batch = core.sample(64)[0]
        assert batch["refined"].mean() == 0.5 and (batch["mask"][np.arange(64), batch["slot"]]).all()
    core.seal()
    again = ReplayCore(tmp_path, settings, identity, GridDomain()).stats()
    assert again["table"] == pytest.approx(stats["table"]) and again["refinement"] == stats["refinement"]


class Scripted:
    """Answers in order, and keeps what it was shown."""

    def __init__(self, *proposals):
        self.proposals = list(proposals)
        self.histories = []

    def propose(self, case, history):
        self.histories.append([(attempt.id, attempt.error, attempt.verdict) for attempt in history])
        return self.proposals.pop(0)


def test_what_cannot_be_played_costs_a_round_and_nothing_more(comparator, settings, results, engine):
    item = next(r.pending for r in results if r.rounds)
    decision = comparator.decision(item.snapshot)
    legal = engine.catalogue.legal(comparator.observation(item.snapshot))
    illegal = int(np.flatnonzero(~legal)[-1])
    known = {id: outcome for id, outcome in comparator.known(item.snapshot).items() if id != item.played}
    losing = next(
        id
        for id, outcome in known.items()
        if comparator.verdict(outcome, comparator.outcome(item.snapshot, item.played)) != "better"
    )
    script = Scripted(
        Proposal(None, error="unparsed", prompt="p1", reply="hm"),
        Proposal(None, error="deadline"),
        Proposal(illegal),
        Proposal(item.played),
        Proposal(losing, prompt="p5", model="m", adapter_version=3),
        Proposal(losing),
    )
    options = settings.model_copy(update={"refine": settings.refine.model_copy(update={"proposals": 6})})
    ids = itertools.count(10_000, 1000)
    (result,) = Refiner(GridDomain(), comparator, script, options, lambda n: next(ids)).refine([item])
    assert [row["error"] for row in result.rounds] == ["unparsed", "deadline", "illegal", "repeats", "", "repeats"]
    assert result.status == "rejected" and result.refined == -1
    (row,) = result.transitions
    assert row["catalogue_id"] == losing and not row["valid"] and row["round"] == 5
    assert (row["prompt"], row["model"], row["adapter_version"], row["refiner"]) == ("p5", "m", 3, "search")
    assert script.histories[-1][:2] == [(None, "unparsed", None), (None, "deadline", None)]
    assert script.histories[-1][4][0] == losing and script.histories[-1][4][2] in ("tie", "worse")
    assert decision.mask[0]


def test_a_seed_snapshot_brings_its_own_original(comparator, settings, results):
    item = next(r.pending for r in results if r.status == "accepted")
    seed = PendingRefinement(1, -1, item.snapshot, item.played, "seed")
    ids = itertools.count(10_000, 1000)
    (result,) = Refiner(GridDomain(), comparator, SearchProposer(), settings, lambda n: next(ids)).refine([seed])
    original, *others = result.transitions
    assert original["source"] == "replay" and original["catalogue_id"] == item.played
    assert original["reward"] == pytest.approx(item.reward)
    assert others and all(row["parent_id"] == original["id"] for row in others)


def test_the_papers_trigger_and_validity_go_by_the_reward_alone(comparator, settings, results):
    item = next(r.pending for r in results if r.rounds)
    paper = settings.model_copy(update={"mixing": settings.mixing.model_copy(update={"validity": "paper"})})
    for reward, status in ((-10.0, "accepted"), (1e9, "rejected")):
        asked = PendingRefinement(1, item.parent_id, item.snapshot, item.played, "paper", reward=reward)
        ids = itertools.count(10_000, 1000)
        (result,) = Refiner(GridDomain(), comparator, SearchProposer(), paper, lambda n, ids=ids: next(ids)).refine(
            [asked]
        )
        assert result.status == status and len(result.rounds) == (1 if status == "accepted" else 3)
        last = result.transitions[-1]
        assert last["valid"] == (last["reward"] >= 0.0 and not last["terminated"])
        assert result.refined == len(result.transitions) - 1, "the last round is kept, I_v says whether it is drawn"


def test_the_advantage_of_a_decision_is_its_gap_to_the_best_alternative(comparator, settings, results):
    for result in [r for r in results if r.rounds or r.status == "unsalvageable"]:
        item = result.pending
        outcomes = comparator.known(item.snapshot)
        gap = comparator.outcome(item.snapshot, item.played).ret - max(outcome.ret for outcome in outcomes.values())
        assert result.advantage <= 0.0 and result.advantage >= gap - 1e-9


def test_a_refiner_that_is_told_to_stop_hands_out_nothing_half_done(comparator, settings, chain):
    ids = itertools.count(10_000, 1000)
    refiner = Refiner(GridDomain(), comparator, SearchProposer(), settings, lambda n: next(ids), stopped=lambda: True)
    assert list(refiner.refine(chain[0])) == []


def test_a_snapshot_that_cannot_be_rebuilt_fails_alone(comparator, settings, chain):
    item = chain[0][0]
    broken = PendingRefinement(
        7, -1, type(item.snapshot)(item.snapshot.scenario, item.snapshot.log, 5000), item.played, "seed"
    )
    ids = itertools.count(10_000, 1000)
    (result,) = Refiner(GridDomain(), comparator, SearchProposer(), settings, lambda n: next(ids)).refine([broken])
    assert result.status == "failed" and result.error


@pytest.mark.parametrize("reached", [False, True])
def test_a_chronic_that_cannot_be_read_on_costs_its_own_decision(comparator, settings, chain, reached, monkeypatch):
    """Grid2Op meets a broken chronic with any error; on the way to the decision, or after it."""
    item = chain[0][0]
    earlier = type(item.snapshot)(item.snapshot.scenario, item.snapshot.log, item.snapshot.step - 1 - reached)
    ids = itertools.count(10_000, 1000)
    refiner = Refiner(GridDomain(), comparator, SearchProposer(), settings, lambda n: next(ids))
    comparator.hold([earlier] if reached else [])

    def broken(*_: object) -> None:
        raise IndexError("index 5 is out of bounds")

    with monkeypatch.context() as patch:
        patch.setattr(type(comparator.simulator.rebuilder.env), "step", broken)
        (result,) = refiner.refine([PendingRefinement(8, -1, earlier, item.played, "lookback")])
    assert result.status == "failed" and "cannot be played: IndexError: index 5" in result.error
    (sound,) = refiner.refine([PendingRefinement(9, -1, earlier, item.played, "lookback")])
    assert sound.status != "failed"


def test_search_goes_down_the_scores_and_random_never_repeats(comparator, results):
    result = next(r for r in results if r.rounds)
    snapshot, played = result.pending.snapshot, result.pending.played
    decision = comparator.decision(snapshot)
    from ace_ray.refine.case import Attempt, Case

    outcome = comparator.outcome(snapshot, played)
    case = Case(snapshot, comparator.observation(snapshot), decision, played, outcome)
    for proposer in (SearchProposer(), RandomProposer(3)):
        history = []
        for _ in range(int(decision.mask.sum()) - (played in decision.ids[decision.mask])):
            proposal = proposer.propose(case, history)
            assert proposal.error is None
            history.append(Attempt(proposal.id, outcome, "worse"))
        tried = [attempt.id for attempt in history]
        assert len(set(tried)) == len(tried) and played not in tried
        assert set(tried) | {played} >= set(decision.ids[decision.mask].tolist())
        assert proposer.propose(case, history).error == "repeats"


def test_search_prefers_the_best_score_unlike_what_failed_and_takes_the_rest_last():
    rho = np.array([0.90, 0.801, 0.80, 0.70, 0.70, 0.95], np.float32)  # percent 90, 80, 80, 70, 70, 95
    outage = np.array([1.20, 1.10, 1.10, 1.00, 1.01, 1.20], np.float32)
    decision = Decision(
        step=0,
        kind="insecure",
        ids=np.array([0, 11, 12, 13, 14, 15], np.int32),
        mask=np.array([True, True, True, True, True, False]),
        score=np.array([-6.0, -1.0, -2.0, -3.0, -4.0, -1e9], np.float32),
        slots=np.zeros((6, 1), np.float32),
        context=np.zeros(1, np.float32),
        rho_after=rho[:, None],
        rho_outage=outage[:, None],
        accompany=(),
    )
    assert next_by_score(decision, {0}) == 11
    assert next_by_score(decision, {11}) == 13  # 12 is predicted to have the effect of 11
    assert next_by_score(decision, {11, 13}) == 14  # 100 % is not 101 %
    assert next_by_score(decision, {11, 13, 14, 0}) == 12  # nothing unlike is left
    assert next_by_score(decision, {11, 12, 13, 14, 0}) is None
    assert next_by_score(decision, {77}) == 11  # what was played has no slot


class FakeComparator:
    """Outcomes by rule: the played action survives from `mistake` decisions before the blackout on, some other from
    `hope` on."""

    def __init__(self, hope: int, mistake: int) -> None:
        self.hope, self.mistake, self.looked_at = hope, mistake, []

    def hold(self, snapshots):
        pass

    def decision(self, snapshot):
        return None

    def compared_set(self, decision, played):
        return (0, played)

    def outcome(self, snapshot, id):
        self.looked_at.append(snapshot)
        return Outcome(snapshot >= (self.mistake if id == 1 else self.hope), 1, 0.0)

    def verdict(self, a, b):
        return "tie"


@pytest.mark.parametrize(("hope", "mistake"), [(0, 40), (17, 30), (17, 18), (39, 40), (40, 40), (0, 0)])
def test_the_latest_decision_that_can_be_saved_is_found_by_bisection(settings, monkeypatch, hope, mistake):
    fake = FakeComparator(hope, mistake)
    options = settings.model_copy(update={"refine": settings.refine.model_copy(update={"walk": 4})})
    refiner = Refiner(GridDomain(), fake, SearchProposer(), options, lambda n: 0)
    asked = lambda item, outcomes, salvageable: RefinementResult(item, "rejected", True, rounds=[{}])  # noqa: E731
    monkeypatch.setattr(refiner, "_ask", asked)
    items = [PendingRefinement(d, d, d, 1, "lookback", d, chain="c") for d in range(40)]
    found = list(refiner.refine(items))
    assert [result.pending.id for result in found] == list(range(40))
    thought = [result.pending.id for result in found if result.rounds]
    assert thought == list(range(hope, min(hope + 4, mistake, 40)))
    statuses = {result.status for result in found}
    assert statuses <= {"rejected", "skipped", "unsalvageable", "survived"}
    assert len({snapshot for snapshot in fake.looked_at}) <= 6 + 5
