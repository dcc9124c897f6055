"""Actor and critic as the refiner asks them: a scripted client in place of the model, the real grid behind."""

import json
from dataclasses import replace

import pytest

from ace_ray.config.refine import CriticSettings, LanguageSettings
from ace_ray.domain import Outcome, Snapshot
from ace_ray.grid.domain import GridDomain
from ace_ray.grid.scenarios.environment import make_env
from ace_ray.grid.simulator import GridSimulator
from ace_ray.language.actor import Actor
from ace_ray.language.view import CaseView
from ace_ray.refine.case import Attempt, Case
from ace_ray.refine.critic import Critic
from ace_ray.refine.proposers import LanguageProposer
from llm_service.errors import DeadlineExceeded, ModelError, Refused
from llm_service.fake import FakeClient
from llm_service.protocol import Priority
from tests.rollout.test_worker import blackouts

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def case(engine, episode_observations, scenario):
    obs = max(episode_observations, key=lambda o: float(o.rho.max()))
    played = int(engine.decide(obs).ids[3])
    decision = engine.decide(obs, proposals=[played])
    return Case(Snapshot(scenario, (), int(obs.current_step)), obs, decision, played, Outcome(False, 12, 0.4))


@pytest.fixture(scope="module")
def actor(env, engine):
    return Actor.of(env, engine, LanguageSettings())


def reply(action):
    return json.dumps({"analysis": "line 3 is hot", "why_bad": "it moved load there", "action": action})


def propose(actor, case, answers, history=()):
    client = FakeClient(answers)
    return LanguageProposer(client, actor, LanguageSettings()).propose(case, history), client


def test_a_listed_candidate_becomes_its_catalogue_id_and_the_exchange_is_kept(actor, case):
    view = actor.case(case.obs, case.decision, case.played, case.outcome)
    wanted = next(n for n, shown in enumerate(view.candidates) if shown.id != case.played)
    text = reply({"candidate": wanted})
    proposal, client = propose(actor, case, [text])
    assert proposal.id == view.candidates[wanted].id and proposal.error is None
    assert proposal.reply == text and proposal.model == "fake" and proposal.prompt_tokens > 0
    messages = json.loads(proposal.prompt)
    assert messages == [dict(message) for message in client.requests[0].messages]
    assert client.requests[0].schema is not None
    assert CaseView.from_json(proposal.case) == view


def test_the_next_round_is_told_what_became_of_the_last_one(actor, case):
    first = LanguageProposer(FakeClient([reply({"candidate": 1})]), actor, LanguageSettings()).propose(case, [])
    tried = Attempt(first.id or 1, Outcome(False, 17, 0.9), "worse", None, first)
    before, _ = propose(actor, case, ["{}"])
    after, _ = propose(actor, case, ["{}"], [tried])
    assert before.case and not after.case  # later rounds show the same case
    assert len(after.prompt) > len(before.prompt) and "17" in json.loads(after.prompt)[-1]["content"]


def test_shipped_snapshots_wait_behind_decisions_that_were_just_played(actor, case):
    priorities = [
        propose(actor, replace(case, reason=reason), ["{}"])[1].requests[0].priority
        for reason in ("lookback", "advantage", "seed")
    ]
    assert priorities == [Priority.FRESH, Priority.FRESH, Priority.BACKFILL]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("I would split substation 16.", "unparsed"),
        (reply({"line": 255, "status": "out"}), "illegal"),
        (DeadlineExceeded("too late"), "deadline"),
        (Refused("queue full"), "refused"),
    ],
)
def test_what_cannot_be_used_is_an_error_of_the_round(actor, case, answer, error):
    proposal, _ = propose(actor, case, [answer])
    assert proposal.id is None and proposal.error == error and proposal.prompt


def test_the_bad_example_again_is_a_repeat(actor, case, engine):
    listed = actor.case(case.obs, case.decision, None, None).candidates
    same = next(n for n, shown in enumerate(listed) if shown.id > 0)
    again = Case(case.snapshot, case.obs, case.decision, listed[same].id, case.outcome)
    view = actor.case(again.obs, again.decision, again.played, again.outcome)
    number = [n for n, shown in enumerate(view.candidates) if shown.id == again.played]
    action = {"candidate": number[0]} if number else {"candidate": 63}
    proposal, _ = propose(actor, again, [reply(action)])
    assert proposal.id is None and proposal.error == ("repeats" if number else "illegal")


def test_a_broken_model_is_not_a_lost_round(actor, case):
    with pytest.raises(ModelError):
        propose(actor, case, [ModelError("torn weights")])


@pytest.fixture(scope="module")
def episode(env, engine, grid_settings):
    """Transition records of an episode that ended in a blackout."""
    return next(blackouts(env, engine, grid_settings))[2]


@pytest.fixture(scope="module")
def simulator(grid_settings, engine):
    env = make_env(grid_settings)
    yield GridSimulator(env, engine)
    env.close()


def judge(simulator, actor, episode, answers, **settings):
    client = FakeClient(answers)
    critic = Critic(client, GridDomain(), simulator, actor, CriticSettings(**settings), LanguageSettings())
    return critic.judge(episode), client


def test_the_critic_edits_key_decisions_within_its_bounds(simulator, actor, episode):
    text = json.dumps({"analysis": "a", "steps": [0, 1, 1, 99], "changes": ["-2K", "+K", "-K", "+K"], "reasons": "r"})
    said, client = judge(simulator, actor, episode, [text], scale=0.2)
    ids = [row["id"] for row in episode]
    assert [edit["delta"] for edit in said.edits] == pytest.approx([-0.4, 0.2]) and said.dropped == 2
    assert said.edits[0]["transition_id"] == ids[0] and {edit["transition_id"] for edit in said.edits} <= set(ids)
    assert said.edits[0]["reply"] == text and said.episode == episode[0]["episode"]
    shown = client.requests[0].messages[-1]["content"]
    assert "ended in a blackout" in shown and ("substation" in shown or "line" in shown)
    assert f"{episode[-1]['step'] + episode[-1]['steps']} steps" in shown


def test_random_edits_are_the_models_own_on_other_key_steps(simulator, actor, episode):
    text = json.dumps({"analysis": "a", "steps": [0, 1, 2], "changes": ["-2K", "+K", "-K"], "reasons": "r"})
    ids = {row["id"] for row in episode}
    drawn = set()
    for seed in range(20):
        critic = Critic(
            FakeClient([text]),
            GridDomain(),
            simulator,
            actor,
            CriticSettings(source="random"),
            LanguageSettings(),
            lambda s=seed: s,
        )
        edits = critic.judge(episode).edits
        assert [edit["delta"] for edit in edits] == pytest.approx([-0.4, 0.2, -0.2])
        steps = tuple(edit["transition_id"] for edit in edits)
        assert len(set(steps)) == 3 and set(steps) <= ids
        drawn.add(steps)
    assert len(drawn) > 5


def test_the_critics_words_are_those_of_the_state_in_which_the_action_was_played(simulator, actor, episode, engine):
    from ace_ray.language.describe import action_text
    from ace_ray.replay.episodes import snapshots_of

    _, client = judge(simulator, actor, episode, ["{}"])
    shown = client.requests[0].messages[-1]["content"]
    last = snapshots_of(episode, 1, GridDomain())[0]
    obs = simulator.observation(last)
    assert action_text(engine.catalogue, episode[-1]["catalogue_id"], obs) in shown
    assert float(obs.rho.max()) == pytest.approx(episode[-1]["rho_before"], abs=1e-6)


@pytest.mark.parametrize(("answer", "error"), [("no", "unparsed"), (DeadlineExceeded("late"), "deadline")])
def test_a_critic_without_an_answer_edits_nothing(simulator, actor, episode, answer, error):
    said, _ = judge(simulator, actor, episode, [answer])
    assert said.edits == [] and said.error == error
