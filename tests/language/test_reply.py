"""Replies: what is read, and what is refused for which reason."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ace_ray.language.reply import parse_actor, resolve
from tests.language.cases import made_case

pytestmark = pytest.mark.unit


class Lookup:
    """A catalogue of one substation action and the five switches of line 45."""

    size = 1000

    def find(self, substation, buses):
        return 700 if (substation, list(buses)) == (16, [2, 1, 2]) else None

    def find_line(self, line, status, or_bus=1, ex_bus=1):
        return 226 + (0 if status <= 0 else 2 * or_bus + ex_bus - 2) if line == 45 else None


LEGAL = np.ones(1000, dtype=bool)


def reply(action, **more):
    return json.dumps({"analysis": "a", "why_bad": "b", "action": action, **more})


def read(text, legal=LEGAL, taken=(), bad=0):
    return resolve(text, made_case(bad), Lookup(), legal, taken)


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ({"candidate": 1}, 700),
        ({"substation": 16, "buses": [2, 1, 2]}, 700),
        ({"line": 45, "status": "out"}, 226),
        ({"line": 45, "status": "in 1-2"}, 228),
    ],
)
def test_each_form_of_an_action_names_a_catalogue_id(action, expected):
    found = read(reply(action))
    assert (found.id, found.error) == (expected, None)
    assert found.playable == expected


def test_prose_and_code_fences_around_the_object_are_skipped():
    text = f"Here {{you}} go:\n```json\n{reply({'candidate': 2})}\n```\nGood luck!"
    assert read(text).playable == 800


@pytest.mark.parametrize(
    "text",
    [
        "",
        "candidate 1",
        '{"action": {"candidate": 1}',
        reply({"candidate": "1"}),
        reply({"candidate": True}),
        reply({"substation": 16, "buses": [1, 3]}),
        reply({"substation": 16, "buses": []}),
        reply({"line": 45, "status": "open"}),
        reply("candidate 1"),
        reply(None),
        "[" * 10_000,
    ],
)
def test_what_is_no_action_of_a_known_form_is_unparsed(text):
    found = read(text)
    assert (found.playable, found.error) == (None, "unparsed")


@pytest.mark.parametrize(
    "action",
    [
        {"candidate": 4},
        {"candidate": -1},
        {"substation": 99, "buses": [1]},
        {"substation": 16, "buses": [1, 1, 1]},
        {"line": 58, "status": "out"},
        {"line": 900, "status": "out"},
    ],
)
def test_what_is_not_listed_or_not_in_the_catalogue_is_illegal(action):
    assert read(reply(action)).error == "illegal"


def test_what_cannot_be_done_now_is_illegal():
    legal = LEGAL.copy()
    legal[700] = False
    found = read(reply({"candidate": 1}), legal=legal)
    assert (found.id, found.playable, found.error) == (700, None, "illegal")


def test_the_bad_example_and_earlier_proposals_are_repeats_in_any_form():
    assert read(reply({"candidate": 1}), bad=1).error == "repeats"
    assert read(reply({"substation": 16, "buses": [2, 1, 2]}), bad=1).error == "repeats"
    assert read(reply({"candidate": 2}), taken={800}).error == "repeats"


@given(st.text(max_size=300))
def test_no_text_raises(text):
    read(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(st.sampled_from(["action", "candidate", "line", "status", "substation", "buses"]), inner)
        ),
    )
)
def test_no_json_raises(value):
    found = read(json.dumps(value))
    assert found.error is not None or found.playable is not None


def test_the_texts_of_a_reply_are_kept():
    parsed = parse_actor(reply({"candidate": 1}))
    assert parsed is not None
    assert (parsed.analysis, parsed.why_bad) == ("a", "b")
