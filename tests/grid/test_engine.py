"""Decisions: what fills the slots, their scores, what may vary and what may not."""

import numpy as np
import pytest

from ace_ray.config.grid import CandidateSettings, CriticalSettings, GridSettings
from ace_ray.grid.candidates import MASKED_SCORE, slot_scores
from ace_ray.grid.engine import Decision, DecisionEngine
from ace_ray.grid.physics.catalogue import LINE, NOOP, SUBSTATION
from ace_ray.grid.physics.kernels import ISLAND
from ace_ray.grid.physics.model import GridState
from ace_ray.grid.scenarios.environment import make_env
from tests.grid.messy import messy_observations

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def states(env, engine):
    """20 states, with lines out and split substations among them."""
    return messy_observations(env, engine.catalogue, seed=9, count=20, every=5)


@pytest.fixture(scope="module")
def decisions(engine, states) -> list[Decision]:
    engine.set_memory([])
    return [engine.decide(obs) for obs in states]


def same(a: Decision, b: Decision) -> bool:
    arrays = ("ids", "mask", "score", "slots", "context", "rho_after", "rho_outage")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in arrays) and a.accompany == b.accompany


def test_slots_are_distinct_legal_and_ordered(engine, states, decisions):
    spec, catalogue = engine.spec, engine.catalogue
    for obs, decision in zip(states, decisions, strict=True):
        assert decision.ids.shape == decision.mask.shape == decision.score.shape == (spec.slots,)
        assert decision.slots.shape == (spec.slots, spec.slot_features)
        assert decision.context.shape == (spec.context_features,)
        filled = decision.ids >= 0
        assert decision.ids[0] == 0
        assert decision.mask[0]
        assert len(set(decision.ids[filled])) == filled.sum()
        assert not decision.mask[~filled].any()
        assert catalogue.legal(obs, decision.ids[decision.mask]).all()
        assert (decision.score[~decision.mask] == MASKED_SCORE).all()
        scores = decision.score[1:][decision.mask[1:]]
        assert (np.diff(scores) <= 0).all()
        substations = catalogue.substation[decision.ids[filled]]
        counts = np.bincount(substations[substations >= 0], minlength=1)
        assert counts.max() <= spec.slots * engine.settings.candidates.substation_share


def test_a_ranking_that_leaves_out_what_is_worse_makes_the_same_shortlist(engine, states):
    candidates, most, left_out = engine.candidates, engine.settings.candidates.shortlist, 0
    for obs in states:
        lin = engine.linearise(GridState.from_observation(engine.model, obs))
        everything, few = (candidates.ranked(lin, None, obs, (), False, n) for n in (0, most))
        chosen, cut = (candidates._capped(ids)[:most] for ids, _ in (everything, few))
        assert few[0][cut].tolist() == everything[0][chosen].tolist()
        assert few[1][cut].tolist() == everything[1][chosen].tolist()
        left_out += everything[0].size - few[0].size
    assert left_out > 0


def test_mask_legal_slots_do_not_end_the_episode(engine, states, decisions):
    played = 0
    for obs, decision in zip(states, decisions, strict=True):
        for slot in np.flatnonzero(decision.mask)[:10]:
            if decision.rho_after[slot].max() > 1.0:
                continue  # the protections may trip lines, and then anything may happen
            action = engine.action(engine.ids_for(decision, int(slot)), obs)
            after, _, done, info = obs.simulate(action, time_step=0)
            assert not done
            assert not info["is_illegal"]
            assert not info["is_ambiguous"]
            np.testing.assert_allclose(decision.rho_after[slot], after.rho, atol=2e-5)
            played += 1
    assert played > 60


def test_decisions_are_a_function_of_the_observation(engine, states, decisions):
    for obs, decision in zip(states[::-1], decisions[::-1], strict=True):
        assert same(engine.decide(obs), decision)
        assert same(engine.decide(obs.copy()), decision)


def test_another_engine_in_another_environment_decides_alike(grid_settings, states, decisions):
    other = make_env(grid_settings)
    try:
        stranger = DecisionEngine(other, grid_settings)
        assert all(same(stranger.decide(o), d) for o, d in zip(states[:6], decisions[:6], strict=True))
    finally:
        other.close()


def test_deciding_leaves_the_environment_alone(env, engine, scenario):
    from ace_ray.grid.scenarios.scenario import reset_to

    def play(deciding: bool) -> list[np.ndarray]:
        obs, seen = reset_to(env, scenario), []
        for _ in range(40):
            if deciding:
                engine.decide(obs)
                engine.exact_outage(obs)
            obs, _, done, _ = env.step(env.action_space())
            seen.append(obs.rho.copy())
            if done:
                break
        return seen

    assert all(np.array_equal(a, b) for a, b in zip(play(False), play(True), strict=True))


def test_proposals_always_get_a_slot(engine, states):
    catalogue, rng = engine.catalogue, np.random.default_rng(0)
    for obs in states[:8]:
        legal = catalogue.legal(obs)
        bad = np.flatnonzero(~legal)
        proposals = [int(i) for i in [*rng.choice(np.flatnonzero(legal), 3), *rng.choice(bad, 2)]]
        decision = engine.decide(obs, proposals)
        for proposal in proposals:
            slot = np.flatnonzero(decision.ids == proposal)
            assert slot.size == 1
            assert not (decision.mask[slot[0]] and not legal[proposal])
        assert decision.ids[0] == 0


def test_more_proposals_than_slots_keep_do_nothing(engine, states):
    obs = states[0]
    legal = np.flatnonzero(engine.catalogue.legal(obs))[1:200]
    decision = engine.decide(obs, legal.tolist())
    assert decision.ids[0] == 0
    assert set(decision.ids[1:]) <= set(legal.tolist())


def test_only_exploration_is_random_and_never_displaces_the_best(engine, states, decisions):
    differs = 0
    for obs, decision in zip(states[:8], decisions[:8], strict=True):
        one, two = (engine.decide(obs, rng=np.random.default_rng(s)) for s in (1, 2))
        assert same(one, engine.decide(obs, rng=np.random.default_rng(1)))
        differs += not same(one, two)
        for random in (one, two):
            assert random.ids[np.argmax(random.score)] == decision.ids[np.argmax(decision.score)]
            keep = 40
            assert set(decision.ids[:keep]) <= set(random.ids)
    assert differs > 4


def test_memory_gets_its_slots(grid_settings, env, states):
    engine = DecisionEngine(env, grid_settings)
    obs = states[0]
    plain = engine.decide(obs)
    legal = np.setdiff1d(np.flatnonzero(engine.catalogue.legal(obs)), plain.ids)
    legal = legal[engine.catalogue.kind[legal] == SUBSTATION]
    remembered = np.random.default_rng(0).permutation(legal)[:40].tolist()
    engine.set_memory(remembered)
    decision = engine.decide(obs)
    assert engine.memory == sorted(remembered)
    among = [slot for slot, i in enumerate(decision.ids) if int(i) in set(remembered)]
    assert 4 <= len(among) <= grid_settings.candidates.memory + 4  # some may be among the best by themselves
    scored = engine.decide(obs, proposals=remembered)
    slots = [slot for slot, i in enumerate(scored.ids) if int(i) in set(remembered)]
    best = scored.ids[sorted(slots, key=lambda slot: -scored.score[slot])[:4]]
    assert len(slots) == len(remembered) and set(best) <= set(decision.ids)
    assert decision.ids[decision.score.argmax()] == plain.ids[plain.score.argmax()]


def test_features_are_named_finite_and_fit_float16(engine, decisions):
    spec = engine.spec
    assert len(engine.slot_feature_names) == len(set(engine.slot_feature_names)) == spec.slot_features
    assert len(engine.context_feature_names) == len(set(engine.context_feature_names)) == spec.context_features
    slots = np.stack([d.slots for d in decisions])
    context = np.stack([d.context for d in decisions])
    assert slots.dtype == context.dtype == np.float32
    for features in (slots, context):
        assert np.isfinite(features).all()
        assert np.abs(features).max() <= 16
    is_noop = engine.slot_feature_names.index("is do-nothing")
    gain = engine.slot_feature_names.index("gain in score over do-nothing")
    assert (slots[:, 0, is_noop] == 1).all()
    assert (slots[:, 1:, is_noop] == 0).all()
    assert (slots[:, 0, gain] == 0).all()


def test_overloaded_score_is_minus_the_ac_max_rho(engine, states, decisions):
    checked = 0
    for obs, decision in zip(states, decisions, strict=True):
        if decision.kind != "overloaded":
            continue
        assert obs.rho.max() >= engine.settings.critical.rho_overloaded
        mask = decision.mask
        expected = -np.minimum(decision.rho_after[mask].max(axis=1), ISLAND)
        np.testing.assert_allclose(decision.score[mask], expected, atol=2e-5)
        checked += 1
    assert checked >= 3


def test_insecure_score_lets_do_nothing_win_unless_the_gain_is_large_enough():
    critical = CriticalSettings(insecure_gain=0.02, rho_overloaded=0.95)
    ids, usable = np.array([0, 7, 8, 9, 10]), np.array([True, True, True, True, False])
    rho = np.array([[0.8], [0.8], [0.8], [0.96], [0.1]])
    outage = np.array([[1.2], [1.19], [1.17], [0.9], [0.1]])
    score = slot_scores(False, rho, outage, usable, ids, critical)
    np.testing.assert_allclose(score, [-1.18, -1.19, -1.17, -1.96, -ISLAND])
    assert score.argmax() == 2
    assert slot_scores(False, rho[:2], outage[:2], usable[:2], ids[:2], critical).argmax() == 0
    np.testing.assert_allclose(slot_scores(True, rho, outage, usable, ids, critical)[:4], [-0.8, -0.8, -0.8, -0.96])


def test_ties_go_to_the_action_that_moves_fewer_elements_then_to_the_lower_id(engine, decisions):
    for decision in decisions:
        ids, score = decision.ids[1:][decision.mask[1:]], decision.score[1:][decision.mask[1:]]
        moved = decision.slots[1:, engine.slot_feature_names.index("elements moved /10")][decision.mask[1:]]
        for i in np.flatnonzero(np.diff(score) == 0):
            assert (moved[i], ids[i]) < (moved[i + 1], ids[i + 1]) or decision.accompany


@pytest.mark.parametrize("predicate", ["overloaded", "insecure", "both"])
def test_critical_follows_the_predicate(env, states, predicate):
    settings = GridSettings(data="shipped", critical=CriticalSettings(predicate=predicate, insecure_every=2))
    engine = DecisionEngine(env, settings)
    kinds = set()
    for obs in states:
        over = obs.rho.max() >= 0.95
        insecure = engine.worst_outage(obs).max() >= 1.05 and obs.current_step % 2 == 0
        assert engine.secure(obs) == (engine.worst_outage(obs).max() < 1.05)
        expected = "overloaded" if over and predicate != "insecure" else None
        if expected is None and insecure and predicate != "overloaded":
            expected = "insecure"
        assert engine.critical(obs) == expected
        kinds.add(expected)
    assert None in kinds
    assert kinds - {None} == ({predicate} if predicate != "both" else {"overloaded", "insecure"})


def test_a_reconnection_goes_along_with_substation_slots_only(engine, states, decisions):
    accompanied = 0
    for decision in decisions:
        for slot in np.flatnonzero(decision.mask):
            ids = engine.ids_for(decision, int(slot))
            assert ids[0] == decision.ids[slot]
            kind = engine.catalogue.kind[decision.ids[slot]]
            assert kind in (NOOP, LINE, SUBSTATION)
            assert ids[1:] == (() if kind == LINE else decision.accompany)
        for reconnection in decision.accompany:
            assert engine.catalogue.kind[reconnection] == LINE
            accompanied += 1
    assert accompanied >= 1


def test_all_lines_as_outages_leave_out_bridges(case14):
    settings = GridSettings(env="l2rpn_case14_sandbox", critical=CriticalSettings(outages="all", insecure_every=1))
    engine = DecisionEngine(case14, settings)
    assert 0 < engine.spec.outages < engine.spec.lines  # line 18 of case14 feeds a substation alone
    decision = engine.decide(case14.reset(seed=0))
    assert decision.rho_outage.shape == (64, engine.spec.outages)
    assert decision.mask.sum() > 10


def test_fewer_slots_than_candidates(env):
    candidates = CandidateSettings(slots=6, shortlist=10, exploratory=0, memory=0)
    settings = GridSettings(data="shipped", candidates=candidates)
    engine = DecisionEngine(env, settings)
    decision = engine.decide(env.reset(seed=1), proposals=[1000, 2000])
    assert decision.ids.shape == (6,)
    assert {1000, 2000} <= set(decision.ids.tolist())


def test_a_partition_at_the_end_of_a_reconnected_line_is_scored_as_it_is_played(env, engine):
    catalogue, model = engine.catalogue, engine.model
    rng, compared = np.random.default_rng(0), 0
    for obs in messy_observations(env, catalogue, seed=21, count=40, every=4):
        accompany = engine.decide(obs).accompany
        for reconnection in accompany:
            line = catalogue.line[reconnection]
            ends = (model.line_or_sub[line], model.line_ex_sub[line])
            legal = np.flatnonzero(catalogue.legal(obs) & np.isin(catalogue.substation, ends))
            chosen = rng.permutation(legal)[:12]
            decision = engine.decide(obs, proposals=chosen)
            assert decision.accompany == accompany
            for slot in np.flatnonzero(decision.mask & np.isin(decision.ids, chosen)):
                ids = engine.ids_for(decision, int(slot))
                assert ids[1:] == accompany
                after, _, done, _ = obs.simulate(engine.action(ids, obs), time_step=0)
                if done or after.line_status.sum() != obs.line_status.sum() + 1:
                    continue  # tripped by the protections
                np.testing.assert_allclose(decision.rho_after[slot], after.rho, atol=2e-5)
                compared += 1
    assert compared > 10


def test_where_a_reconnection_goes_along_switches_are_ranked_as_they_are_played(env, engine):
    """A switch goes alone; in the state after the reconnection it may look far worse than it is, or better."""
    catalogue, compared = engine.catalogue, 0
    engine.set_memory([])  # whose slots need not be good
    for obs in messy_observations(env, catalogue, seed=21, count=40, every=4):
        decision = engine.decide(obs)
        if not decision.accompany:
            continue
        switches = np.flatnonzero(catalogue.kind == LINE)
        missing = np.setdiff1d(switches[catalogue.legal(obs, switches)], decision.ids)
        last = decision.score[1:][decision.mask[1:]].min()
        for part in np.array_split(missing, 1 + missing.size // (engine.spec.slots - 1)):
            proposed = engine.decide(obs, proposals=part)
            found = proposed.mask & np.isin(proposed.ids, part)
            assert proposed.score[found].max(initial=-np.inf) <= last
            compared += part.size
    assert compared > 500
