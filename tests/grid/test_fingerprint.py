"""The fingerprint of the engine: one on every machine, another as soon as the engine decides otherwise."""

import copy
import json
import subprocess
import sys

import pytest

from ace_ray.config.grid import GridSettings
from ace_ray.grid.engine import DecisionEngine
from ace_ray.grid.fingerprint import TOLERANCE, behaviour, same
from ace_ray.grid.rules import Rules

pytestmark = pytest.mark.unit

SETTINGS = GridSettings()


@pytest.fixture(scope="module")
def present():
    return behaviour(SETTINGS)


def test_another_process_finds_the_same(present):
    code = (
        "import json; from ace_ray.config.grid import GridSettings; from ace_ray.grid.fingerprint import behaviour;"
        "print(json.dumps(behaviour(GridSettings())))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert same(present, json.loads(told.splitlines()[-1]))


def test_the_states_are_alive_and_differ(present):
    assert not any("ended" in state for state in present)
    assert {state["kind"] for state in present} == {"overloaded", "insecure"}
    assert any(state["rules"] for state in present) and not all(state["rules"] for state in present)
    assert len({next(iter(state["scores"])) for state in present}) >= len(present) // 2


def test_an_engine_that_scores_or_rules_otherwise_is_another(present, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Rules, "reconnection", lambda self, obs: None)
        assert not same(present, behaviour(SETTINGS))
    short = GridSettings(candidates={"shortlist": 4, "slots": 4})
    assert not same(present, behaviour(short))
    with monkeypatch.context() as patch:
        patch.setattr(DecisionEngine, "critical", lambda self, obs: None)
        assert not same(present, behaviour(SETTINGS))


def test_what_two_machines_may_differ_by_is_no_difference(present):
    other = copy.deepcopy(present)
    for state in other:
        known = state["scores"]
        state["scores"] = {i: score + TOLERANCE / 4 for i, score in reversed(known.items())}
    assert same(present, other)
    scores = other[0]["scores"]
    last = min(scores, key=scores.__getitem__)
    scores["12345"] = scores.pop(last)  # another id that ties with the last one took its place
    assert same(present, other)
    scores["12345"] += 10 * TOLERANCE  # a better one did not
    assert not same(present, other) and not same(other, present)
    assert not same(present, present[1:])
