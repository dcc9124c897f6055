"""The AC check and the linear screen against what Grid2Op itself simulates, and security against the AC check."""

import numpy as np
import pytest

from ace_ray.config.grid import GridSettings
from ace_ray.grid.engine import DecisionEngine
from ace_ray.grid.physics.kernels import ISLAND
from ace_ray.grid.physics.model import GridState
from ace_ray.grid.scenarios.environment import make_env
from tests.grid.messy import messy_observations, spread_ids

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def states(env, engine):
    """24 states: together they have lines out, split substations and a split slack substation."""
    seen = messy_observations(env, engine.catalogue, seed=5, count=24)
    assert sum(not obs.line_status.all() for obs in seen) >= 5
    assert sum((obs.topo_vect == 2).any() for obs in seen) >= 10
    return seen


def simulated(engine, obs, action_id, expected_topo):
    """rho that Grid2Op simulates, or None on divergence; 'tripped' where its protections opened further lines."""
    after, _, done, _ = obs.simulate(engine.action((action_id,), obs), time_step=0)
    if done:
        return None
    same = (after.line_status == (expected_topo[engine.model.line_or_pos] > 0)).all()
    return after.rho if same else "tripped"


def test_ac_check_equals_simulate(engine, states):
    rng, compared, switches, slack_moves = np.random.default_rng(0), 0, 0, 0
    for obs in states:
        check = engine.check
        assert check.load(obs)
        ids = spread_ids(rng, engine.catalogue, obs, per_substation=1, switches=4)
        checked = check.sweep(ids)
        for i, action_id in enumerate(ids):
            rho = simulated(engine, obs, int(action_id), check.topology_after(check.topo, int(action_id)))
            if isinstance(rho, str):
                continue
            if rho is None:  # dark at once, or after the protections tripped what is above its limit
                assert not checked.converged[i] or checked.rho[i].max() > 1.0
                continue
            assert checked.converged[i]
            np.testing.assert_allclose(checked.rho[i], rho, atol=1e-5)
            compared += 1
            switches += engine.catalogue.line[action_id] >= 0
            slack_moves += engine.catalogue.substation[action_id] == engine.model.slack_sub
    assert compared > 400
    assert switches > 50
    assert slack_moves > 10


@pytest.mark.parametrize("name", ["l2rpn_case14_sandbox", "l2rpn_wcci_2022_dev"])
def test_other_grids_with_shunts_and_storage_equal_simulate(name):
    settings = GridSettings(env=name, data="shipped")
    environment = make_env(settings)
    engine = DecisionEngine(environment, settings)
    rng, compared = np.random.default_rng(0), 0
    try:
        for obs in messy_observations(environment, engine.catalogue, seed=5, count=5):
            check = engine.check
            assert check.load(obs)
            solved = check.state(GridState.from_observation(engine.model, obs))
            np.testing.assert_allclose(solved.rho, obs.rho, atol=1e-5)
            ids = spread_ids(rng, engine.catalogue, obs, per_substation=1, switches=2)[::2]
            checked = check.sweep(ids)
            for i, action_id in enumerate(ids):
                rho = simulated(engine, obs, int(action_id), check.topology_after(check.topo, int(action_id)))
                if rho is None or isinstance(rho, str):
                    continue
                np.testing.assert_allclose(checked.rho[i], rho, atol=1e-5)
                compared += 1
            assert engine.decide(obs).mask.sum() > 10
    finally:
        environment.close()
    assert compared > 20


def test_moving_the_slack_generator_equals_simulate(env, engine):
    obs = env.reset(seed=3)
    catalogue, model = engine.catalogue, engine.model
    s = model.slack_sub
    ids = np.arange(catalogue.offsets[s], catalogue.offsets[s + 1])
    ids = ids[catalogue.legal(obs, ids)]
    moving = ids[catalogue.bus_rows(ids)[:, model.slack_pos] == 2]
    assert moving.size > 3
    check = engine.check
    check.load(obs)
    checked = check.sweep(moving)
    for i, action_id in enumerate(moving):
        after, _, done, _ = obs.simulate(engine.action((int(action_id),), obs), time_step=0)
        assert done == (not checked.converged[i])
        if not done:
            np.testing.assert_allclose(checked.rho[i], after.rho, atol=1e-5)


def test_a_row_on_its_own_equals_the_sweep_and_restores_the_state(engine, states):
    check, catalogue = engine.check, engine.catalogue
    rng = np.random.default_rng(1)
    for obs in states[:8]:
        if obs.rho.max() > 1.5:
            continue  # near collapse there is more than one solution
        check.load(obs)
        ids = [int(i) for i in spread_ids(rng, catalogue, obs, per_substation=1, switches=2)]
        swept = check.sweep(ids)
        p, q, rho = (np.zeros((len(ids), engine.spec.lines)) for _ in range(3))
        converged = np.zeros(len(ids), bool)
        for i, action_id in enumerate(ids):
            check._alone(action_id, -1, i, p, q, rho, converged)
        both = converged & swept.converged
        assert both.sum() > 20
        np.testing.assert_allclose(rho[both], swept.rho[both], atol=1e-5)
        np.testing.assert_allclose(p[both], swept.p_or[both], atol=1e-2)
        np.testing.assert_allclose(check.sweep(ids).rho, swept.rho, atol=1e-6)


def test_the_loaded_state_is_the_observation(engine, states):
    for obs in states:
        assert engine.check.load(obs)
        measured = GridState.from_observation(engine.model, obs)
        solved = engine.check.state(measured)
        np.testing.assert_allclose(solved.rho, obs.rho, atol=1e-5)
        np.testing.assert_allclose(solved.p_ex, obs.p_ex, atol=1e-2)
        np.testing.assert_allclose(solved.injection, measured.injection, atol=1e-2)
        np.testing.assert_allclose(solved.v_ex, obs.v_ex, atol=1e-3)


def test_linear_screen_is_close_to_ac(engine, states):
    rng, errors, pairs = np.random.default_rng(2), [], []
    for obs in states:
        if obs.rho.max() > 1.2:
            continue  # near collapse nothing linear holds
        engine.check.load(obs)
        lin = engine._factors.linearise(GridState.from_observation(engine.model, obs))
        ids = spread_ids(rng, engine.catalogue, obs, per_substation=4, switches=0)
        rows = engine.screen.rows(lin, ids, engine.security.lines)
        linear = engine.screen.rho(lin, rows).max(axis=1)
        checked = engine.check.sweep(ids)
        good = checked.converged & rows.usable
        assert (checked.converged <= rows.usable).all()  # what the screen calls an island has no AC solution
        errors.append(np.abs(linear - checked.max_rho())[good])
        pairs.append(np.stack([linear, checked.max_rho()])[:, good])
    assert len(errors) >= 10
    assert np.median(np.concatenate(errors)) < 0.01
    assert np.corrcoef(np.concatenate(pairs, axis=1))[0, 1] > 0.9


def test_transformers_with_tap_ratios_are_screened_as_well_as_lines(engine, states):
    """Their DC susceptance is 1 / (x ratio); all four transformers of this grid have a ratio (0.935 to 0.985)."""
    grid, model = engine.check._grid, engine.model
    taps = np.arange(model.n_line) >= len(grid.get_lines())
    ratios = np.array([t.ratio for t in grid.get_trafos()])
    assert taps.sum() == ratios.size == 4
    assert (np.abs(ratios - 1.0) > 0.01).all()
    rng, flow, rho = np.random.default_rng(4), [], []
    for obs in states:
        if obs.rho.max() > 1.2:
            continue
        engine.check.load(obs)
        lin = engine._factors.linearise(GridState.from_observation(model, obs))
        ids = spread_ids(rng, engine.catalogue, obs, per_substation=4, switches=4)
        rows = engine.screen.rows(lin, ids, engine.security.lines)
        checked = engine.check.sweep(ids)
        good = checked.converged & rows.usable
        flow.append(np.abs(rows.flows - checked.p_or)[good])
        rho.append(np.abs(engine.screen.rho(lin, rows) - checked.rho)[good])
    for errors, unit in ((np.concatenate(flow), 10.0), (np.concatenate(rho), 0.3)):
        assert np.percentile(errors[:, taps], 99) < max(unit, 2 * np.percentile(errors[:, ~taps], 99))
        assert np.median(errors[:, taps]) < unit / 50


def test_parallel_lines_are_parted_and_lost_as_simulated(env, engine):
    model, catalogue, check = engine.model, engine.catalogue, engine.check
    ends = np.sort(np.stack([model.line_or_sub, model.line_ex_sub]), axis=0)
    pairs = [(a, b) for a in range(model.n_line) for b in range(a) if (ends[:, a] == ends[:, b]).all()]
    assert len(pairs) == 4
    obs, rng, parted, lost = env.reset(seed=3), np.random.default_rng(0), 0, 0
    lin = engine._factors.linearise(GridState.from_observation(model, obs))
    for a, b in pairs:
        s = int(np.intersect1d(ends[:, a], engine.screen.substations)[0])
        places = [(model.line_or_pos if model.line_or_sub[x] == s else model.line_ex_pos)[x] for x in (a, b)]
        own = np.arange(catalogue.offsets[s], catalogue.offsets[s + 1])
        apart = np.diff(catalogue.bus_rows(own)[:, places], axis=1)[:, 0] != 0
        ids = rng.permutation(own[apart & catalogue.legal(obs, own)])[:6]
        opening = [catalogue.find_line(a, -1), catalogue.find_line(b, -1)]
        ids = np.concatenate([ids, [i for i in opening if catalogue.legal(obs, [i])[0]]]).astype(np.int64)
        assert check.load(obs)
        checked, rows = check.sweep(ids), engine.screen.rows(lin, ids, engine.security.lines)
        for i, action_id in enumerate(ids.tolist()):
            rho = simulated(engine, obs, action_id, check.topology_after(check.topo, action_id))
            if rho is None:
                assert not checked.converged[i] or checked.rho[i].max() > 1.0
                continue
            assert rows.usable[i]
            if isinstance(rho, str):
                continue
            np.testing.assert_allclose(checked.rho[i], rho, atol=1e-5)
            assert abs(engine.screen.rho(lin, rows)[i, [a, b]] - rho[[a, b]]).max() < 0.1
            parted += catalogue.line[action_id] < 0
            lost += catalogue.line[action_id] >= 0
    assert parted > 10
    assert lost >= 6


def test_exact_security_equals_simulate(engine, states):
    compared, before = 0, engine.check.fallbacks
    for obs in states[::3]:
        rng = np.random.default_rng(3)
        ids = spread_ids(rng, engine.catalogue, obs, per_substation=1, switches=0)[::4]
        ids = ids[engine.catalogue.line[ids] < 0]  # a switch and an outage together are two lines: illegal
        exact = engine.exact_outage(obs, ids)
        for i, action_id in enumerate(ids):
            for o, line in enumerate(engine.security.lines):
                if not obs.line_status[line]:
                    continue
                action = engine.action((int(action_id),), obs)
                buses = action.set_bus.copy()
                buses[[engine.model.line_or_pos[line], engine.model.line_ex_pos[line]]] = 0
                both = type(action)()
                both.set_bus = buses
                both.set_line_status = [(int(line), -1)]
                after, _, done, _ = obs.simulate(both, time_step=0)
                if done:
                    assert exact[i, o] == ISLAND or exact[i, o] > 1.0
                elif after.line_status.sum() == obs.line_status.sum() - 1:
                    np.testing.assert_allclose(exact[i, o], after.rho.max(), atol=1e-4)
                    compared += 1
    assert compared > 150
    assert engine.check.fallbacks == before  # one sweep does it all


def test_linear_security_is_close_to_exact(engine, states):
    errors, wrong, total = [], 0, 0
    for obs in states:
        if obs.rho.max() > 1.2:
            continue
        linear, exact = engine.worst_outage(obs), engine.exact_outage(obs)[0]
        lost = obs.line_status[engine.security.lines]
        comparable = lost & (exact < 2.0)
        errors.append(np.abs(linear - exact)[comparable])
        wrong += (linear.max() >= 1.05) != (exact[lost].max() >= 1.05)
        total += 1
    assert np.median(np.concatenate(errors)) < 0.03
    assert wrong <= total // 4


def test_outage_features_of_slots_are_close_to_exact(engine, states):
    errors = []
    for obs in states[::4]:
        if obs.rho.max() > 1.2:
            continue
        decision = engine.decide(obs)
        ids = decision.ids[decision.mask][:12]
        exact = engine.exact_outage(obs, ids)
        close = decision.rho_outage[: len(exact)]
        lost = obs.line_status[engine.security.lines]
        if not decision.accompany:
            errors.append(np.abs(close - exact)[:, lost][exact[:, lost] < 2.0])
    assert np.median(np.concatenate(errors)) < 0.03
