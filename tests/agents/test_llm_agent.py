"""The model alone in control: it plays what the reply names, and does nothing where the reply cannot be played."""

import json
import subprocess
import sys

import pytest

from ace_ray.agents import registry
from ace_ray.agents.llm import LanguageAgent
from ace_ray.config.errors import ConfigError
from ace_ray.config.refine import LanguageSettings
from ace_ray.evaluation.evaluate import evaluate_all
from llm_service.errors import Refused
from llm_service.fake import FakeClient
from llm_service.protocol import Priority

pytestmark = pytest.mark.unit


def answer(action):
    return json.dumps({"analysis": "a", "why_bad": "There is no bad example.", "action": action})


@pytest.fixture(scope="module")
def obs(episode_observations):
    return max(episode_observations, key=lambda o: float(o.rho.max()))


def agent(env, grid_settings, answers):
    client = FakeClient(answers)
    return LanguageAgent(env, grid_settings, client, LanguageSettings()), client


def test_it_plays_the_candidate_that_the_reply_names(env, grid_settings, engine, obs):
    asked, client = agent(env, grid_settings, [answer({"candidate": 2})])
    decision, slot = asked.decide(obs)
    ranked = sorted(
        (k for k in range(len(decision.ids)) if decision.mask[k] and decision.ids[k] > 0),
        key=lambda k: -float(decision.score[k]),
    )
    assert decision.ids[slot] == decision.ids[ranked[1]] and asked.unusable == 0
    prompt = client.requests[0].messages[1]["content"]
    assert "Bad example" not in prompt and client.requests[0].priority == Priority.EVALUATION


def test_an_action_outside_the_list_gets_a_slot_of_its_own(env, grid_settings, engine, obs):
    offered = set(engine.decide(obs).ids.tolist())
    legal = engine.catalogue.legal(obs)
    line = next(i for i in range(obs.n_line) if legal[1 + 5 * i] and 1 + 5 * i not in offered)
    asked, _ = agent(env, grid_settings, [answer({"line": line, "status": "out"})])
    decision, slot = asked.decide(obs)
    if slot == 0:  # the grid does not survive it: no slot is legal
        assert asked.unusable == 1
    else:
        assert decision.ids[slot] == 1 + 5 * line and decision.mask[slot]


@pytest.mark.parametrize("reply", ["nonsense", answer({"line": 255, "status": "out"}), Refused("busy")])
def test_what_cannot_be_played_does_nothing_and_is_counted(env, grid_settings, obs, reply):
    asked, _ = agent(env, grid_settings, [reply])
    decision, slot = asked.decide(obs)
    assert slot == 0 and decision.ids[0] == 0 and (asked.asked, asked.unusable) == (1, 1)


def test_it_is_evaluated_like_every_agent(grid_settings):
    made = []

    def make(env, grid):
        made.append(agent(env, grid, [answer({"candidate": 0})])[0])
        return made[-1]

    scenarios = "chronics=0;seeds=3;steps=60"
    with registry.given("llm", make):
        (found,) = evaluate_all(["llm"], scenarios, grid_settings, processes=1, progress=False)
    assert made[0].asked == found.episodes[0].decisions > 0 and made[0].unusable == 0
    with pytest.raises(ConfigError):
        evaluate_all(["llm"], scenarios, grid_settings, processes=1, progress=False)


def test_it_imports_neither_ray_nor_the_engine():
    program = "import sys, ace_ray.agents.llm; sys.exit(' '.join({'ray', 'vllm', 'torch'} & sys.modules.keys()) or 0)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
