"""The paper's prompt: no list of candidates, changes of lines that are looked up as one action."""

import json

import numpy as np
import pytest

from ace_ray.config.refine import LanguageSettings
from ace_ray.domain import Outcome
from ace_ray.language.actor import Actor
from ace_ray.language.describe import facts_of
from ace_ray.language.paper import parse_changes

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def actor(env, engine, grid_settings):
    facts = facts_of(env, engine.security.lines, grid_settings)
    return Actor(engine, facts, LanguageSettings(prompt="paper", substations=6))


@pytest.fixture(scope="module")
def obs(episode_observations):
    return max((o for o in episode_observations if o.line_status.all()), key=lambda o: float(o.rho.max()))


@pytest.fixture(scope="module")
def case(actor, engine, obs):
    decision = engine.decide(obs)
    return actor.case(obs, decision, int(decision.ids[3]), Outcome(False, 9, 0.1))


def reply(changes):
    return json.dumps({"analysis": "a", "why_bad": "b", "changes": changes})


def open_substation(case, obs):
    """A shown substation with at least three lines in service, all on bus 1, that may be changed."""
    return next(
        view
        for view in case.substations
        if set(view.buses) == {1} and view.wait == 0 and sum(name.startswith("line") for name in view.elements) >= 3
    )


def test_the_prompt_lists_no_candidates_and_tells_where_each_line_is(actor, case, obs):
    system, user = (message["content"] for message in actor.messages(case, obs, None))
    assert "candidate" not in (system + user).lower() and "at most 5 lines" in system
    view = case.substations[0]
    for name, bus, flow in zip(view.elements, view.buses, view.flows, strict=True):
        if name.startswith("line ") and bus:
            assert f"{name} {round(100 * float(obs.rho[int(name[5:])]))} %" in user
            assert flow.percent == round(100 * float(obs.rho[int(name[5:])]))
    assert "Bad example: " in user and "the grid went black after 9 of 100 steps" in user


def test_changes_move_exactly_these_line_ends_at_one_substation(actor, case, obs):
    view = open_substation(case, obs)
    lines = [int(name[5:]) for name in view.elements if name.startswith("line ")][:2]
    found = actor.read(reply([{"line": line, "bus": 2} for line in lines]), case, obs)
    assert found.error is None and found.id is not None
    row = actor.catalogue.bus_rows([found.id])[0]
    at = actor.catalogue.positions[view.substation]
    split = {name for name, p in zip(view.elements, at, strict=True) if row[p] != row[at[-1]]}
    moved = {f"line {line}" for line in lines}
    assert split in (moved, set(view.elements) - moved)


def test_the_papers_own_mapping_is_read_as_well():
    told = parse_changes('Changes follow. {"changes": {"12": 1, "7": 2}} as asked')
    assert told is not None and told.action == {"changes": {12: 1, 7: 2}}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ([{"line": n, "bus": 2} for n in range(6)], "illegal"),
        ([{"line": 12, "bus": 0}], "illegal"),
        ([{"line": 200, "bus": 2}], "illegal"),
        ([{"line": "12", "bus": 2}], "unparsed"),
        ("none", "unparsed"),
        ([12, 13], "unparsed"),
    ],
)
def test_what_is_no_change_of_at_most_five_lines_is_an_error(actor, case, obs, changes, error):
    assert actor.read(reply(changes), case, obs).error == error


def test_no_change_is_do_nothing_and_what_is_so_already_is_illegal(actor, case, obs):
    assert actor.read(reply([]), case, obs).id == 0
    view = open_substation(case, obs)
    line = next(int(name[5:]) for name in view.elements if name.startswith("line "))
    assert actor.read(reply([{"line": line, "bus": 1}]), case, obs).error == "illegal"


def test_lines_without_a_common_substation_are_illegal(actor, case, obs):
    ends = {frozenset((int(obs.line_or_to_subid[i]), int(obs.line_ex_to_subid[i]))): i for i in range(obs.n_line)}
    shown = {view.substation for view in case.substations}
    inside = [i for pair, i in ends.items() if pair & shown]
    apart = next((a, b) for a in inside for b in inside if not (_ends(obs, a) & _ends(obs, b)))
    assert actor.read(reply([{"line": n, "bus": 2} for n in apart]), case, obs).error == "illegal"


def _ends(obs, line):
    return {int(obs.line_or_to_subid[line]), int(obs.line_ex_to_subid[line])}


def test_the_schema_takes_what_is_read(actor):
    changes = actor.schema["properties"]["changes"]
    assert changes["maxItems"] == 5 and changes["items"]["properties"].keys() == {"line", "bus"}
    assert np.array_equal(changes["items"]["properties"]["bus"]["enum"], [1, 2])
