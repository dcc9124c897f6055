"""The reply grammar: it compiles under the engine's own library and accepts exactly what the parser reads."""

import json

import pytest

from ace_ray.language.critic import critic_reply
from ace_ray.language.schema import ACTOR_SCHEMA, CRITIC_SCHEMA

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def accepts():
    """A function that says whether a text is a sentence of a schema, as xgrammar (which the service uses) reads it."""
    xgrammar = pytest.importorskip("xgrammar")
    tokens = xgrammar.TokenizerInfo([bytes([i]) for i in range(256)] + [b"</s>"], vocab_size=257, stop_token_ids=[256])
    compiler = xgrammar.GrammarCompiler(tokens, cache_enabled=True)  # with the cache, as in the engine

    def check(schema, text):
        grammar = compiler.compile_json_schema(json.dumps(schema), any_whitespace=False, separators=(",", ":"))
        matcher = xgrammar.GrammarMatcher(grammar)
        return matcher.accept_string(text) and matcher.accept_token(256)

    return check


def actor(action, analysis="Line 20 is at 103 %; losing line 45 would bring 163 %."):
    reply = {"analysis": analysis, "why_bad": "It leads to 103 %.", "action": action}
    return json.dumps(reply, separators=(",", ":"))


@pytest.mark.parametrize(
    "action",
    [
        {"candidate": 12},
        {"substation": 16, "buses": [1, 2, 1, 1]},
        {"line": 45, "status": "out"},
        {"line": 45, "status": "in 2-1"},
    ],
)
def test_every_form_of_an_action_is_a_sentence(accepts, action):
    assert accepts(ACTOR_SCHEMA, actor(action))


@pytest.mark.parametrize("action", [{"candidate": 64}, {"substation": 16, "buses": [3]}, {"line": 45, "status": "in"}])
def test_other_actions_are_not(accepts, action):
    assert not accepts(ACTOR_SCHEMA, actor(action))


def test_strings_are_bounded_and_hold_no_control_characters(accepts):
    assert accepts(ACTOR_SCHEMA, actor({"candidate": 1}, "x" * 240))
    assert not accepts(ACTOR_SCHEMA, actor({"candidate": 1}, "x" * 241))
    assert not accepts(ACTOR_SCHEMA, actor({"candidate": 1}, "a").replace('"a"', '"a\nb"'))


def test_what_the_critic_is_taught_is_a_sentence(accepts):
    assert accepts(CRITIC_SCHEMA, critic_reply("end", [1, 4], [-2.0, 1.0], "why"))
    assert accepts(CRITIC_SCHEMA, critic_reply("end", [], [], "why"))
