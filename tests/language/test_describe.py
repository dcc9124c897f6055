"""Descriptions of real states: names, buses and effects agree with Grid2Op; what is proposed is found again."""

import json

import numpy as np
import pytest

from ace_ray.config.refine import LanguageSettings
from ace_ray.domain import Outcome
from ace_ray.language.actor import Actor
from ace_ray.language.describe import action_text, element_names, facts_of

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def actor(env, engine, grid_settings):
    facts = facts_of(env, engine.security.lines, grid_settings)
    return Actor(engine, facts, LanguageSettings())


@pytest.fixture(scope="module")
def obs(episode_observations):
    return max(episode_observations, key=lambda o: o.rho.max() - 10 * o.current_step / 10_000)


@pytest.fixture(scope="module")
def decision(engine, obs):
    return engine.decide(obs)


def test_elements_are_named_as_in_the_catalogue(catalogue, obs):
    for substation in (1, 16, 23):
        positions, names = element_names(obs, substation)
        assert positions == catalogue.positions[substation].tolist()
        known = [n.removesuffix(" origin").removesuffix(" extremity") for n in catalogue.element_names(substation)]
        assert names == known


def test_the_text_of_an_action_names_exactly_what_it_moves(catalogue, obs):
    legal = np.flatnonzero(catalogue.legal(obs) & (catalogue.kind == 2))
    for action in legal[:: max(1, len(legal) // 40)]:
        positions, names = element_names(obs, int(catalogue.substation[action]))
        row = catalogue.bus_rows([action])[0]
        text = action_text(catalogue, int(action), obs)
        moved = {
            n for p, n in zip(positions, names, strict=True) if obs.topo_vect[p] > 0 and row[p] != obs.topo_vect[p]
        }
        told = set()
        for part in text.split(": ", 1)[1].split("; "):
            kind = ""
            for piece in part.rsplit(" to bus ", 1)[0].split(", "):
                words = piece.split(" ")
                kind = words[0].rstrip("s") if len(words) == 2 else kind
                told.add(f"{kind} {words[-1]}")
        assert told == moved


def test_the_case_lists_do_nothing_first_and_the_best_by_score(actor, obs, decision):
    case = actor.case(obs, decision, played=int(decision.ids[3]), outcome=Outcome(False, 9, 0.1))
    assert case.candidates[0].id == 0
    scores = [c.score for c in case.candidates[1:]]
    assert scores == sorted(scores, reverse=True)
    assert len(case.candidates) == 1 + LanguageSettings().candidates
    best = max((float(s), int(i)) for s, i in zip(decision.score, decision.ids, strict=True) if i > 0)
    assert case.candidates[1].score == pytest.approx(best[0], abs=1e-3)


def test_predicted_loadings_are_those_of_the_decision(actor, obs, decision):
    case = actor.case(obs, decision)
    for view in case.candidates:
        slot = decision.ids.tolist().index(view.id)
        assert view.percent == min(500, round(100 * float(decision.rho_after[slot].max())))
        assert view.line == int(decision.rho_after[slot].argmax())


def test_a_proposed_bus_assignment_is_found_again(actor, obs, decision):
    case = actor.case(obs, decision, played=0, outcome=Outcome(False, 9, 0.1))
    wanted = next(c for c in case.candidates if actor.catalogue.kind[c.id] == 2)
    substation = int(actor.catalogue.substation[wanted.id])
    row = actor.catalogue.bus_rows([wanted.id])[0]
    buses = [int(row[p]) for p in actor.catalogue.positions[substation]]
    text = json.dumps({"analysis": "", "why_bad": "", "action": {"substation": substation, "buses": buses}})
    assert actor.read(text, case, obs).playable == wanted.id


def test_without_candidates_the_prompt_is_the_papers(engine, env, obs, decision, grid_settings):
    facts = facts_of(env, engine.security.lines, grid_settings)
    bare = Actor(engine, facts, LanguageSettings(candidates=0, substations=6))
    case = bare.case(obs, decision, played=0, outcome=Outcome(False, 9, 0.1))
    text = bare.messages(case, obs, decision)[1]["content"]
    assert case.candidates == ()
    assert "Candidates" not in text
    assert text.count("Substation ") >= 3


def test_flows_are_the_power_that_leaves_the_substation(env, engine, grid_settings, obs, decision):
    facts = facts_of(env, engine.security.lines, grid_settings)
    view = Actor(engine, facts, LanguageSettings(flows=True)).case(obs, decision).substations[0]
    gives = 0.0
    for name, flow in zip(view.elements, view.flows, strict=True):
        kind, number = name.split(" ")[0], int(name.split(" ")[1])
        if kind == "line":
            ends = (int(obs.line_or_to_subid[number]), int(obs.line_ex_to_subid[number]))
            assert {flow.to, view.substation} == set(ends) and flow.percent == round(100 * float(obs.rho[number]))
        gives += flow.mw if kind == "generator" else -flow.mw
    assert abs(gives) <= 1.0 * len(view.elements)  # Kirchhoff, within the rounding of each element


def test_the_facts_are_those_of_the_environment(env, engine, grid_settings):
    facts = facts_of(env, engine.security.lines, grid_settings)
    assert (facts.step_minutes, facts.horizon, facts.offset) == (5, 100, 0.9)
    assert facts.opponent and facts.attack_steps == 48 and facts.overload_steps == 3


def test_prompts_of_real_states_stay_within_two_thousand_tokens(env, engine, grid_settings, episode_observations):
    from transformers import AutoTokenizer

    from llm_service.settings import EMBEDDED

    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED)
    facts = facts_of(env, engine.security.lines, grid_settings)
    actors = [Actor(engine, facts, LanguageSettings(prompt=p)) for p in ("ace", "paper")]
    for obs in sorted(episode_observations, key=lambda o: -float(o.rho.max()))[:8]:
        decision = engine.decide(obs)
        for actor in actors:
            messages = actor.messages(actor.case(obs, decision, 0, Outcome(False, 9, 0.1)), obs, decision)
            assert len(tokenizer.apply_chat_template(messages, tokenize=True)["input_ids"]) <= 2000
