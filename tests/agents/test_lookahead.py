from dataclasses import replace

import numpy as np
import pytest

from ace_ray.agents.expert.lookahead import Lookahead
from ace_ray.grid.forecast import Injections, foretell, foretold, simulate
from ace_ray.grid.physics.catalogue import LINE, SUBSTATION
from ace_ray.grid.scenarios.scenario import reset_to

pytestmark = pytest.mark.unit


@pytest.fixture()
def state(env, engine, scenario):
    """An observation that can simulate, its lookahead and its node."""
    obs = reset_to(env, scenario)
    for _ in range(4):
        obs, _, _, _ = env.step(env.action_space())
    lookahead = Lookahead(engine, engine.settings.expert)
    return obs, lookahead, lookahead.load(obs, engine.opponent.contingencies(obs, 0), foretold(obs))


def test_measured_flows_are_those_that_simulate_shows_for_the_next_step(state, engine):
    obs, lookahead, node = state
    moves = lookahead.expand(node, "both")
    rows = np.random.default_rng(0).permutation(len(moves.ids))[:12]
    for row in rows:
        after, _, done, _ = obs.simulate(engine.action((int(moves.ids[row]),), obs))
        assert not done
        assert moves.rho[row] == pytest.approx(after.rho, abs=5e-3)


def test_all_moves_are_legal_and_do_nothing_is_among_them(state, engine):
    obs, lookahead, node = state
    for aim in ("overload", "risk", "both"):
        moves = lookahead.expand(node, aim)
        assert 0 in moves.ids and len(set(moves.ids.tolist())) == len(moves.ids) > 20
        assert engine.catalogue.legal(obs, moves.ids).all()
    only = lookahead.expand(node, "overload", switches=False)
    assert not (engine.catalogue.kind[only.ids] == LINE).any()


def test_the_screen_finds_moves_that_lower_the_risk(state):
    _, lookahead, node = state
    moves = lookahead.expand(node, "risk")
    assert moves.risk.min() < moves.risk[moves.ids == 0][0] > 0


def test_the_place_after_a_move_is_where_the_environment_goes(state, env, engine):
    obs, lookahead, node = state
    moves = lookahead.expand(node, "risk")
    row = int(np.argmin(np.where(engine.catalogue.kind[moves.ids] == SUBSTATION, moves.risk, np.inf)))
    there = lookahead.after(node, moves, row)
    after, _, _, info = env.step(engine.action((int(moves.ids[row]),), obs))
    assert not info["is_illegal"]
    assert (there.topo == after.topo_vect).all()
    assert (there.substation_rest == after.time_before_cooldown_sub).all()
    assert (there.line_rest == after.time_before_cooldown_line).all()
    assert (there.overflow == after.timestep_overflow).all()
    moved = engine.catalogue.substation[moves.ids[row]]
    again = lookahead.expand(there, "risk")
    assert not (engine.catalogue.substation[again.ids] == moved).any()


def test_exact_stress_is_what_simulate_shows_once_the_line_is_open(state, engine):
    obs, lookahead, node = state
    moves = lookahead.measure(node, [0])
    exact = lookahead.exactly(node, moves, [0])
    soft = engine.settings.expert.soft_rho
    for line, stress in zip(lookahead.contingencies.lines, exact.stress[0], strict=True):
        after, _, done, _ = obs.simulate(engine.action((engine.catalogue.find_line(int(line), -1),), obs))
        assert not done
        assert stress == pytest.approx(np.maximum(after.rho - soft, 0.0).sum(), abs=0.02)
    assert exact.stress.max() > 0.1
    weights, half = lookahead.contingencies.weights, engine.settings.expert.half_stress
    assert exact.risk[0] == pytest.approx(
        sum(w * s / (s + half) for w, s in zip(weights, exact.stress[0], strict=True))
    )


@pytest.fixture()
def strained(env, engine, scenario):
    """The same once much more flows everywhere in the next step: some lines are above their limit."""
    obs = reset_to(env, scenario)
    for _ in range(4):
        obs, _, _, _ = env.step(env.action_space())
    foretell(obs, Injections(*(1.6 * values for values in foretold(obs))))
    lookahead = Lookahead(engine, engine.settings.expert)
    return obs, lookahead, lookahead.load(obs, engine.opponent.contingencies(obs, 0), foretold(obs))


def test_a_line_that_was_above_its_limit_for_too_long_is_out_in_the_place_after(strained, engine):
    obs, lookahead, node = strained
    obs.timestep_overflow[:] = obs.timestep_protection_engaged[:] = engine.game.tolerated
    node = replace(node, overflow=obs.timestep_overflow.copy())
    moves = lookahead.measure(node, [0])
    there = lookahead.after(node, moves, 0)
    out = there.topo[engine.model.line_or_pos] < 0
    assert out.any() and (out == (moves.rho[0] > 1.0)).all()
    assert (there.line_rest[out] == engine.game.tripped_rest).all() and not there.overflow.any()
    theirs = simulate(obs, engine.action((), obs))
    assert theirs.done or not theirs.obs.line_status[out].any()
    calm = lookahead.after(replace(node, overflow=np.zeros_like(node.overflow)), moves, 0)
    assert (calm.topo == obs.topo_vect).all() and (calm.overflow == out).all()


def test_the_moves_of_a_plan_relieve_nearly_as_well_as_all_that_the_screen_offers(strained, engine):
    obs, lookahead, node = strained
    few, many = lookahead.relieving(node, 24), lookahead.expand(node, "overload")
    assert engine.catalogue.legal(obs, few.ids).all() and 0 in few.ids
    assert (engine.catalogue.kind[few.ids] == LINE).sum() <= 6 and few.ids.size <= 31 < many.ids.size

    def overload(moves):
        return np.maximum(moves.rho - 1.0, 0.0).sum(axis=1)

    nothing = overload(many)[many.ids == 0][0]
    assert overload(many).min() < 0.7 * nothing
    assert overload(few).min() <= overload(many).min() + 0.1 * nothing
    both, at = np.intersect1d(few.ids, many.ids, return_indices=True)[0:2]
    assert few.rho[at] == pytest.approx(many.rho[np.searchsorted(many.ids, both)])
