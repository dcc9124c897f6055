"""The exam of a served model: scores by the comparator, on spaced held-out states, beside what needs no model."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from ace_ray.config.errors import DataError, GridMismatchError
from ace_ray.config.grid import CandidateSettings, CompareSettings, GridSettings
from ace_ray.config.refine import CriticSettings, LanguageSettings, RefineSettings
from ace_ray.config.run import RunSettings
from ace_ray.domain import Outcome, survival_regret, verdict
from ace_ray.lab.embedded.critic_examples import LabelledEpisode, critic_example
from ace_ray.lab.embedded.label_files import META, write_rows
from ace_ray.lab.embedded.labels import Labeller
from ace_ray.lab.embedded.planting import plant, training_episodes
from ace_ray.lab.exam.critic_exam import RULES, CriticExam
from ace_ray.lab.exam.exam import BASELINES, Exam, ExamState, exam_plan, read_states, score
from ace_ray.lab.exam.result import FIELDS, critic_lines, critic_result, exam_lines, exam_result
from ace_ray.language.critic import EpisodeStep, critic_system, parse_critic
from ace_ray.refine.case import Attempt
from ace_ray.refine.proposers import SearchProposer
from ace_ray.refine.rounds import make_case
from llm_service.errors import DeadlineExceeded
from llm_service.fake import FakeClient

pytestmark = pytest.mark.unit

GRID = GridSettings(
    compare=CompareSettings(horizon=24, first=4), candidates=CandidateSettings(slots=16, shortlist=32, memory=0)
)
SETTINGS = RunSettings(grid=GRID, refine=RefineSettings(rounds=3), language=LanguageSettings(candidates=4))
PLAN = replace(exam_plan(GRID, 240), max_steps=120, perturbation=(0.5,))


def answer(action):
    return json.dumps({"analysis": "a", "why_bad": "b", "action": action})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """States of the first validation episodes, as `make_states` leaves them."""
    path = tmp_path_factory.mktemp("states")
    labeller = Labeller(PLAN)
    (path / META).write_text(json.dumps(labeller.meta()))
    for index in range(3):
        rows = labeller.episode("validation", index)
        if rows:
            write_rows(path / f"labels-validation-{index:06d}.parquet", rows)
    return path


@pytest.fixture(scope="module")
def states(folder):
    found = read_states(folder, "validation", 100)
    assert len(found) >= 4
    return found


@pytest.fixture(scope="module")
def exam(folder):
    return Exam(SETTINGS, folder)


def test_states_of_one_episode_lie_25_steps_apart_and_those_of_many_come_from_40_episodes(states):
    steps: dict[str, list[int]] = {}
    for state in states:
        steps.setdefault(state.snapshot.scenario.key(), []).append(state.snapshot.step)
    for taken in map(sorted, steps.values()):
        assert all(b - a >= 25 for a, b in zip(taken, taken[1:], strict=False))
    for wanted in (40, 100, 500):
        plan = exam_plan(GRID, wanted)
        assert plan.before_blackout + plan.random <= max(1, wanted // 40)


def test_a_pivotal_state_is_one_whose_offered_actions_partly_survive(states):
    for state in states:
        offered = [outcome.survived for id, outcome in state.outcomes.items() if id != state.played]
        if state.pivotal:
            assert len({outcome.survived for outcome in state.outcomes.values()}) == 2
        elif len(offered) == len(state.outcomes):
            assert len(set(offered)) == 1


def test_a_model_that_names_the_listed_action_of_best_outcome_regrets_nothing(exam, states):
    def best_listed(request):
        """Reads the outcomes that the exam has loaded: no model could."""
        text = request.messages[1]["content"]
        state = next(s for s in states if f"step {s.snapshot.step:,}. " in text)
        return answer({"candidate": exam_number(exam, state)})

    def exam_number(exam, state):
        obs = exam.comparator.observation(state.snapshot)
        decision = exam.comparator.decision(state.snapshot)
        case = exam.actor.case(obs, decision, state.played)
        numbers = [n for n, c in enumerate(case.candidates) if c.id != state.played and c.id in state.outcomes]
        return max(
            numbers,
            key=lambda n: (
                state.outcomes[case.candidates[n].id].survived,
                state.outcomes[case.candidates[n].id].ret,
            ),
        )

    unique = {s.snapshot.step: s for s in states}
    chosen = list(unique.values())[:3]
    for state in chosen:
        (record,) = exam.take(FakeClient(best_listed), [state], progress=False)
        others = [f for i, f in state.outcomes.items() if i != state.played]
        lost = survival_regret(state.outcomes.values(), max(others, key=lambda f: (f.survived, f.ret)), 24)
        assert record["model"]["survival_regret"] == pytest.approx(lost)
        assert record["model"]["parsed"] == record["model"]["legal"] == 1.0
        assert record["model"]["outside_list"] == 0.0
        assert record["without_grammar"] == {"parsed": 1.0, "legal": 1.0}


@pytest.mark.parametrize(
    ("reply", "parsed", "legal"),
    [
        ("I cannot say.", 0.0, 0.0),
        (answer({"line": 255, "status": "out"}), 1.0, 0.0),
        (DeadlineExceeded("late"), 0.0, 0.0),
    ],
)
def test_what_cannot_be_played_is_worse_and_regrets_like_the_worst(exam, states, reply, parsed, legal):
    (record,) = exam.take(FakeClient([reply]), states[:1], progress=False)
    scores, outcomes = record["model"], states[0].outcomes.values()
    assert (scores["parsed"], scores["legal"], scores["worse"]) == (parsed, legal, 1.0)
    assert scores["survival_regret"] == pytest.approx(survival_regret(outcomes, None, 24))
    assert scores["better_3"] == 0.0  # three rounds of the same: the played action stays


def test_the_bad_example_again_is_not_legal(exam, states):
    for state in states:
        obs, decision = exam.comparator.observation(state.snapshot), exam.comparator.decision(state.snapshot)
        number = exam.actor.case(obs, decision, state.played).number(state.played)
        if number is not None:
            (record,) = exam.take(FakeClient([answer({"candidate": number})]), [state], progress=False)
            assert record["model"]["parsed"] == 1.0 and record["model"]["legal"] == 0.0
            return
    pytest.fail("no played action is listed")


def test_a_baseline_is_scored_by_the_same_outcomes_and_search_is_what_its_proposer_plays(exam, states):
    (record,) = exam.take(FakeClient(["{}"]), states[:1], progress=False)
    state = states[0]
    decision = exam.comparator.decision(state.snapshot)
    assert set(record["baselines"]) == set(BASELINES)
    ranked = sorted(
        (k for k in range(len(decision.ids)) if decision.mask[k] and decision.ids[k] >= 0),
        key=lambda k: -float(decision.score[k]),
    )
    case = make_case(exam.comparator, state.snapshot, state.played, state.outcomes)
    first = SearchProposer().propose(case, []).id
    told = verdict(state.outcomes[first], state.outcomes[state.played], GRID.compare.tie)
    assert record["baselines"]["search"][told] == 1.0
    greedy = int(decision.ids[ranked[0]])
    regret = survival_regret(state.outcomes.values(), state.outcomes[greedy], 24)
    assert record["baselines"]["greedy"]["survival_regret"] == pytest.approx(regret)
    for scores in record["baselines"].values():
        assert scores["better"] + scores["tie"] + scores["worse"] == pytest.approx(1.0)


def test_rounds_keep_the_first_better_action_and_the_played_one_until_then():
    dead, alive, long = Outcome(False, 4, 0.1), Outcome(True, 20, 2.0), Outcome(False, 12, 1.0)
    outcomes = {0: dead, 1: long, 2: alive}
    attempts = [Attempt(None, None, None, "unparsed"), Attempt(2, alive, "better")]
    scores = score(attempts, outcomes, played=1, rounds=3, horizon=20)
    assert scores["survival_regret"] == pytest.approx(1 - 4 / 20)  # unusable: like the worst
    assert scores["survival_regret_1"] == pytest.approx(1 - 12 / 20)  # the played action is kept
    assert scores["survival_regret_2"] == scores["survival_regret_3"] == 0.0
    assert (scores["better_1"], scores["better_2"], scores["better_3"]) == (0.0, 1.0, 1.0)
    assert scores["return_regret"] == pytest.approx(2.0 - 0.1)


def test_the_result_has_every_key_overall_and_for_pivotal_states(exam, states):
    records = list(exam.take(FakeClient([answer({"candidate": 1}), "no"]), states[:4], progress=False))
    records[0]["pivotal"] = True
    found = exam_result(records, SETTINGS, "validation")
    json.dumps(found)
    assert found["model"] == "fake" and found["states"] == 4
    for part in (found["overall"], found["pivotal"]):
        for row in (part, *part["baselines"].values()):
            assert set(FIELDS) <= row.keys() and list(row["rounds"]) == ["1", "2", "3"]
        assert set(part["without_grammar"]) == {"parsed", "legal"}
        for name in BASELINES:
            row = part["paired"][name]["survival_regret"]
            gap = part["survival_regret"] - part["baselines"][name]["survival_regret"]
            assert row["mean"] == pytest.approx(gap, abs=2e-4)
    assert any("pivotal" in line for line in exam_lines(found))


def test_states_replayed_under_other_settings_are_refused(folder):
    other = SETTINGS.model_copy(update={"grid": GRID.model_copy(update={"compare": CompareSettings(horizon=25)})})
    with pytest.raises(GridMismatchError, match="replayed under"):
        Exam(other, folder)


@pytest.fixture(scope="module")
def planted(exam) -> tuple[CriticExam, ExamState, int]:
    """A state, and an action that dies there while the played one survives.

    Searched among all legal slots of the decisions before a blackout: offered actions seldom differ over 24 steps.
    """
    critic = CriticExam(SETTINGS)
    for index in range(8):
        labeller = critic.labeller
        visits, blackout, _ = labeller.follow(
            labeller.scenario("validation", index), lambda decision, step: (int(decision.ids[0]),)
        )
        for visit in reversed(visits[-6:] if blackout else []):
            ids = [int(i) for i, legal in zip(visit.decision.ids, visit.decision.mask, strict=True) if legal]
            outcomes = exam.comparator.outcomes(visit.snapshot, ids)
            alive = [id for id in ids if outcomes[id].survived]
            dead = [id for id in ids if not outcomes[id].survived]
            if alive and dead:
                state = ExamState("made", visit.decision.kind, visit.snapshot, alive[0], outcomes, True)
                return critic, state, dead[0]
    raise AssertionError("in none of eight episodes could a decision before the blackout be saved")


def test_the_planted_episode_is_the_old_one_up_to_there_and_dies_as_the_replay_says(planted):
    exam, state, id = planted
    found = plant(exam.labeller, state.snapshot, id)
    assert found.visits[found.at].snapshot == state.snapshot and found.visits[found.at].played == id
    assert found.blackout and found.steps == state.snapshot.step + state.outcomes[id].steps
    lived = plant(exam.labeller, state.snapshot, state.played)
    assert lived.steps > found.steps


def test_a_controller_that_goes_astray_plays_the_same_up_to_the_planted_decision_only(planted):
    exam, state, _ = planted
    straight, astray = (
        plant(exam.labeller, state.snapshot, state.played, chance, np.random.default_rng(0)) for chance in (0.0, 1.0)
    )
    assert straight.at == astray.at
    before = slice(0, straight.at + 1)
    assert [v.played for v in straight.visits[before]] == [v.played for v in astray.visits[before]]
    assert all(v.rank <= 1 for v in straight.visits[straight.at + 1 :])
    assert any(v.rank > 1 for v in astray.visits[astray.at + 1 :])


def test_a_snapshot_that_is_not_reached_cannot_be_planted_in(planted):
    exam, state, id = planted
    elsewhere = replace(state.snapshot, log=((0, (id,)), *state.snapshot.log))
    assert plant(exam.labeller, elsewhere, id) is None


def test_episodes_for_training_say_what_the_replays_said(planted):
    exam, state, _ = planted
    settings = CriticSettings()
    found = list(training_episodes(exam.labeller, [state], settings, (0.0,), 0))
    assert len({episode.edits for episode in found}) == len(found) >= 1
    for episode in found:
        ((number, level),) = episode.edits
        assert episode.keys[number].step.step == state.snapshot.step
        assert level == (1.0 if episode.survived else -2.0)
        assert LabelledEpisode.from_json(episode.to_json()).edits == episode.edits
        example = critic_example(episode, critic_system(settings))
        said = parse_critic(example.reply, episode.keys, settings)
        assert [(edit.id, edit.level) for edit in said.edits] == [(episode.keys[number].step.id, level)]
    assert not list(
        training_episodes(exam.labeller, [replace(state, outcomes={0: state.outcomes[0]})], settings, (0.0,), 0)
    )


def test_a_critic_that_lowers_the_planted_step_is_told_from_one_that_does_not(planted):
    exam, state, _ = planted

    def at_the_planted_one(level):
        def answer(request):
            shown = request.messages[-1]["content"]
            number = int(re.search(rf"^(\d+): step {state.snapshot.step:,},", shown, re.MULTILINE)[1])
            return json.dumps({"analysis": "a", "steps": [number], "changes": [level], "reasons": "r"})

        return FakeClient(answer)

    lower, *others = exam.take(at_the_planted_one("-2K"), [state], progress=False)
    higher, *_ = exam.take(at_the_planted_one("+2K"), [state], progress=False)
    assert (lower["shown"], lower["lowered"], higher["lowered"]) == (1.0, 1.0, 0.0)
    assert higher["lowered_at_random"] == lower["lowered_at_random"] <= 0.25
    assert not lower["astray"] and sum(not record["astray"] for record in others) <= 1
    assert all(record["lowered"] == record["shown"] for record in others)
    found = critic_result([lower, {**higher, "key": "other"}], SETTINGS, "validation")
    assert found["lowered"]["mean"] == 0.5 and found["edits"] == 1.0 and found["astray"] == {"states": 0}
    assert set(found["rules"]) == set(RULES) and len(critic_lines(found)) == 11


def test_the_rules_name_steps():
    steps = [
        EpisodeStep(i, i, "", "do nothing", 0.1, 0.9, after, 0, rank, behind)
        for i, (after, rank, behind) in enumerate([(0.9, 7, 0.4), (0.95, 2, 0.1), (1.4, 1, 0.0), (math.nan, 1, 0.0)])
    ]
    assert {name: [step.id for step in rule(steps)] for name, rule in RULES.items()} == {
        "latest_off_best": [1],
        "four_off_best": [1, 0],
        "furthest_behind": [0],
        "largest_rise": [2],
    }
    assert [step.id for step in RULES["four_off_best"](steps[:2] * 3)] == [1, 0, 1, 0]
    assert [step.id for step in RULES["latest_off_best"](steps[2:])] == [3]


def test_without_a_planted_decision_there_is_no_figure():
    with pytest.raises(DataError, match="injected"):
        critic_result([], SETTINGS, "validation")
