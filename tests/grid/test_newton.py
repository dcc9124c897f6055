"""The Newton screen against one dense Newton step of the really changed network, and against AC power flow."""

import numpy as np
import pytest

from ace_ray.config.grid import GridSettings
from ace_ray.grid.engine import DecisionEngine
from ace_ray.grid.physics.catalogue import SUBSTATION
from ace_ray.grid.physics.linear import FactorCache
from ace_ray.grid.physics.model import GridState
from ace_ray.grid.physics.newton import tangent
from ace_ray.grid.physics.screen import Screen
from tests.grid.messy import messy_observations

pytestmark = pytest.mark.unit
STEP = 1e-6


@pytest.fixture(scope="module", params=["env", "case14"])
def engine_and_states(request):
    """An engine and states of disorder that it has loaded, one after the other."""
    env = request.getfixturevalue(request.param)
    engine = DecisionEngine(env, GridSettings(env=env.env_name, data="shipped"))
    return engine, messy_observations(env, engine.catalogue, seed=5, count=12)


def linearised(engine, obs):
    """State, AC solution and tangent; None where the power flow has no solution."""
    if not engine.check.load(obs):
        return None
    state = GridState.from_observation(engine.model, obs)
    point = engine.check.point()
    return state, point, tangent(engine.model, FactorCache(engine.model).factors(state.topo), point)


def powers(model, line, a, b):
    """(P, Q) that leave a line at the origin and at the extremity, of (angle, log of voltage) at both ends."""
    v_or, v_ex = np.exp(a[1] + 1j * a[0]), np.exp(b[1] + 1j * b[0])
    into = model.own_admittance[line] * v_or + model.mutual_admittance[line] * v_ex
    back = model.mutual_back_admittance[line] * v_or + model.far_admittance[line] * v_ex
    s_or, s_ex = v_or * np.conj(into), v_ex * np.conj(back)
    return np.array([s_or.real, s_or.imag, s_ex.real, s_ex.imag])


def one_step(model, point, topo, after):
    """Max rho after one Newton step with each end linear about its present voltage; None if cut in two.

    Unknown are the angle and log voltage of every node of `after`; derivatives are differences of exact powers.
    """
    present = np.stack([np.angle(point.voltage), np.log(np.maximum(np.abs(point.voltage), 1e-9))], axis=1)
    node_now = model.pos_sub + model.n_sub * (topo - 1)
    nodes = sorted({int(model.pos_sub[t] + model.n_sub * (after[t] - 1)) for t in np.flatnonzero(after > 0)})
    place = {n: i for i, n in enumerate(nodes)}
    at = [place.get(int(model.pos_sub[t] + model.n_sub * (after[t] - 1)), -1) for t in range(model.dim_topo)]
    n = len(nodes)
    matrix, constant = np.zeros((2 * n, 2 * n)), np.zeros(2 * n)
    lines = {}
    for line in np.flatnonzero((after[model.line_or_pos] > 0) & (topo[model.line_or_pos] > 0)):
        ends = model.line_or_pos[line], model.line_ex_pos[line]
        a, b = present[node_now[ends[0]]], present[node_now[ends[1]]]
        base, derivative = powers(model, line, a, b), np.zeros((4, 4))
        for k in range(4):
            shift = np.eye(4)[k] * STEP
            high = powers(model, line, a + shift[:2], b + shift[2:])
            derivative[:, k] = (high - powers(model, line, a - shift[:2], b - shift[2:])) / (2 * STEP)
        columns = [at[ends[0]], n + at[ends[0]], at[ends[1]], n + at[ends[1]]]
        offset = base - derivative @ np.concatenate([a, b])
        lines[line] = columns, offset, derivative, base, a
        for k, row in enumerate(columns):
            matrix[row, columns] += derivative[k]
            constant[row] += offset[k]
    injection = np.zeros(2 * n)
    np.add.at(injection, [at[t] for t in model.gen_pos], point.gen_p)
    np.add.at(injection, [at[t] for t in model.load_pos], -point.load_p)
    np.add.at(injection, [n + at[t] for t in model.load_pos], -point.load_q)
    for s in np.flatnonzero(point.shunt_q[: model.n_sub]):
        row = n + place[int(s)]
        injection[row] -= point.shunt_q[s] * (1 - 2 * present[s, 1])
        matrix[row, row] += 2 * point.shunt_q[s]
    known = {at[model.slack_pos]: present[node_now[model.slack_pos], 0]}
    known |= {n + at[t]: present[node_now[t], 1] for t in model.gen_pos}
    free = np.setdiff1d(np.arange(2 * n), list(known))
    y = np.zeros(2 * n)
    y[list(known)] = list(known.values())
    y[free] = np.linalg.solve(matrix[np.ix_(free, free)], (injection - constant - matrix @ y)[free])
    worst = 0.0
    for line, (columns, offset, derivative, base, a) in lines.items():
        flow = (offset + derivative @ y[columns])[:2]
        current = np.linalg.norm(flow - base[:2] * (y[columns[1]] - a[1])) / np.exp(a[1])
        worst = max(worst, 1000 * current / (np.sqrt(3) * model.nominal_kv[line] * point.limit[line]))
    return worst


def test_the_ranked_rho_is_that_of_one_newton_step_of_the_changed_network(engine_and_states):
    engine, states = engine_and_states
    model, catalogue, screen = engine.model, engine.catalogue, engine.screen
    rng, compared, merged = np.random.default_rng(1), 0, 0
    for obs in states:
        loaded = linearised(engine, obs)
        if loaded is None:
            continue
        state, point, tan = loaded
        every = np.full(catalogue.size, -1.0)
        screen.rank_now(tan, state.rho, 1, every=every)
        seen = np.flatnonzero((every >= 0) & (every < 25.0))
        for s in np.unique(catalogue.substation[seen]):
            own = seen[catalogue.substation[seen] == s]
            for action in rng.choice(own, min(own.size, 2), replace=False):
                after = engine.check.topology_after(state.topo, int(action))
                if (point.shunt_q[[s, s + model.n_sub]] != 0).any() and (state.topo[catalogue.positions[s]] == 2).any():
                    continue  # its bus cannot be told from the reference below
                expected = one_step(model, point, state.topo, after)
                assert np.sqrt(every[action]) == pytest.approx(expected, rel=1e-5, abs=1e-6)
                compared += 1
                merged += bool((state.topo[catalogue.positions[s]] == 2).any())
    assert compared > 60 and merged >= 2


def test_the_ranked_rho_is_near_that_of_the_ac_power_flow(engine_and_states):
    engine, states = engine_and_states
    catalogue, screen, errors, linear = engine.catalogue, engine.screen, [], []
    for obs in states:
        loaded = linearised(engine, obs)
        if loaded is None:
            continue
        state, _, tan = loaded
        ids, rho = screen.rank_now(tan, state.rho, 4)
        lin = FactorCache(engine.model).linearise(state)
        exact = engine.check.sweep(ids).max_rho()
        near = np.isfinite(exact)
        errors.append(np.abs(rho - exact)[near])
        dc = screen.rho(lin, screen.rows(lin, ids, np.zeros(0, np.int64))).max(axis=1)
        linear.append(np.abs(dc - exact)[near])
    errors, linear = np.concatenate(errors), np.concatenate(linear)
    assert np.median(errors) < 0.005
    assert np.median(errors) < 0.7 * np.median(linear)
    assert (catalogue.kind[ids] == SUBSTATION).all()


def test_keeping_the_best_gives_up_none_of_them(engine_and_states):
    engine, states = engine_and_states
    catalogue, screen, looked_at = engine.catalogue, engine.screen, 0
    for obs in states[:4]:
        loaded = linearised(engine, obs)
        if loaded is None:
            continue
        looked_at += 1
        state, _, tan = loaded
        every = np.full(catalogue.size, -1.0)
        screen.rank_now(tan, state.rho, 1, every=every)
        ids, rho = screen.rank_now(tan, state.rho, 10)
        assert (np.diff(rho) >= 0).all()
        for s in screen.substations:
            own = every[catalogue.offsets[s] : catalogue.offsets[s + 1]]
            own = np.sort(own[(own >= 0) & (own < 1e29)])
            kept = np.sort(rho[catalogue.substation[ids] == s])
            np.testing.assert_allclose(kept, np.sqrt(own[:10]), rtol=1e-3)
    assert looked_at


def test_of_partitions_that_tie_those_that_move_least_are_kept(engine_and_states):
    engine, states = engine_and_states
    catalogue, screen = engine.catalogue, engine.screen
    moved_more = 0
    for obs in states[:6]:
        loaded = linearised(engine, obs)
        if loaded is None:
            continue
        state, _, tan = loaded
        every = np.full(catalogue.size, -1.0)
        screen.rank_now(tan, state.rho, 1, every=every)
        for s in screen.substations:
            ids = np.arange(catalogue.offsets[s], catalogue.offsets[s + 1])
            ids = ids[(every[ids] >= 0) & (every[ids] < 1e29)]
            tied = ids[every[ids] <= every[ids].min(initial=np.inf) + 1e-7]
            if tied.size < 10:
                continue
            best = screen.rank_now(tan, state.rho, 4, substations=np.array([s]))[0]
            positions = catalogue.positions[s]
            live = state.topo[positions] > 0
            after = catalogue.bus_rows(tied)[:, positions][:, live]
            moves = (after != state.topo[positions][live]).sum(axis=1)
            moves = np.minimum(moves, live.sum() - moves)
            assert set(moves[np.isin(tied, best)]) <= set(np.sort(moves)[:4])
            moved_more += moves.max() > np.sort(moves)[3]
    assert moved_more or len(screen.substations) < 20


@pytest.mark.parametrize("name", ["env", "case14"])
def test_a_generator_of_the_slack_stays_where_it_is(name, request):
    environment = request.getfixturevalue(name)
    engine = DecisionEngine(environment, GridSettings(env=environment.env_name, data="shipped"))
    screen: Screen = engine.screen
    layout, model = screen._layout, engine.model
    for s in screen.substations:
        first = layout.elements[layout.sub_ptr[s]]
        held = set(model.elements(int(s))) & set(model.gen_pos.tolist())
        assert first in held if held else first == model.elements(int(s))[0]
    assert layout.elements[layout.sub_ptr[model.slack_sub]] == model.slack_pos
