"""The linear screen against a dense DC solve of the really changed network, and its ranking against plain sorting."""

import numpy as np
import pytest

from ace_ray.config.grid import CriticalSettings
from ace_ray.grid.physics.catalogue import LINE, SUBSTATION, Catalogue
from ace_ray.grid.physics.kernels import CERTAIN, CUT_OFF_LINEAR, ISLAND, MIN_ROOM
from ace_ray.grid.physics.linear import FactorCache
from ace_ray.grid.physics.model import GridModel, GridState
from ace_ray.grid.physics.screen import Screen
from ace_ray.grid.physics.security import Security
from tests.grid.dc_reference import dense_flows, lossless_state, random_topology, topology_after

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module", params=["env", "case14"])
def grid(request):
    """Model, screen, injections of a real state and its catalogue, of the 36- and the 14-substation grid."""
    environment = request.getfixturevalue(request.param)
    model = GridModel.from_env(environment, environment.backend._grid.copy())
    catalogue = Catalogue.from_env(environment)
    state = GridState.from_observation(model, environment.reset(seed=1))
    return model, Screen(model, catalogue), state.injection, catalogue


def linearised(grid, seed):
    model, screen, injection, catalogue = grid
    rng = np.random.default_rng(seed)
    topo = random_topology(model, rng, splits=seed % 4, lines_out=(seed // 2) % 3)
    return rng, FactorCache(model).linearise(lossless_state(model, topo, injection, rng))


def some_ids(rng, catalogue, model):
    """Ids of every substation (the slack's among them) and of the line switches."""
    lines = np.flatnonzero(catalogue.kind == LINE)
    chosen = [0, *rng.choice(lines, 40)]
    for s in range(model.n_sub):
        own = np.arange(catalogue.offsets[s], catalogue.offsets[s + 1])
        if own.size:
            chosen += [own[0], *rng.choice(own, min(own.size, 6), replace=False)]
    return np.array(chosen, np.int64)


@pytest.mark.parametrize("seed", range(12))
def test_flows_after_an_action_equal_a_dense_solve_of_the_changed_network(grid, seed):
    model, screen, injection, catalogue = grid
    rng, lin = linearised(grid, seed)
    ids = some_ids(rng, catalogue, model)
    rows = screen.rows(lin, ids, np.zeros(0, np.int64))
    targets = catalogue.bus_rows(ids)
    compared = 0
    for i, action in enumerate(ids):
        switch = catalogue.kind[action] == LINE
        if switch and (catalogue.line[action] >= 0) and (lin.alive[catalogue.line[action]] != ((action - 1) % 5 == 0)):
            continue  # reconnecting a line in service, disconnecting one out of service: never legal
        after = topology_after(model, targets[i], lin.state.topo, switch)
        expected = dense_flows(model, after, injection)
        if expected is None:
            # a line closed between buses that are both unused does not disturb the rest
            assert not rows.usable[i] or switch
            continue
        assert rows.usable[i]
        np.testing.assert_allclose(rows.flows[i], expected, atol=1e-9 * np.abs(expected).max(), rtol=0)
        compared += 1
    assert compared > 50


@pytest.mark.parametrize("seed", range(6))
def test_outage_after_an_action_equals_a_dense_solve_without_the_line(grid, seed):
    model, screen, injection, catalogue = grid
    rng, lin = linearised(grid, seed)
    outages = rng.choice(model.n_line, 6, replace=False)
    ids = some_ids(rng, catalogue, model)[::4]
    ids = ids[catalogue.kind[ids] != LINE]
    ids = np.concatenate([ids, 1 + 5 * np.flatnonzero(lin.alive)[:5], 2 + 5 * np.flatnonzero(~lin.alive)])
    rows = screen.rows(lin, ids, outages)
    targets = catalogue.bus_rows(ids)
    compared = 0
    for i in np.flatnonzero(rows.usable):
        after = topology_after(model, targets[i], lin.state.topo, catalogue.kind[ids[i]] == LINE)
        for o, k in enumerate(outages):
            response = lin.factors.H[:, k] + rows.D[i, 0] * rows.R[i, 0, o] + rows.D[i, 1] * rows.R[i, 1, o]
            room = 1.0 - response[k]
            without = after.copy()
            without[[model.line_or_pos[k], model.line_ex_pos[k]]] = -1
            expected = dense_flows(model, without, injection)
            if room < MIN_ROOM:  # something is cut off: an island, or the open end of a line that carries nothing
                assert expected is None or abs(rows.flows[i, k]) < 1e-6
            if expected is None:
                assert room < MIN_ROOM
                continue
            flows = rows.flows[i] + (response * rows.flows[i, k] / room if room >= MIN_ROOM else 0.0)
            flows[k] = 0.0
            np.testing.assert_allclose(flows, expected, atol=1e-8 * np.abs(expected).max(), rtol=0)
            compared += 1
    assert compared > 20


def brute_force(grid, lin, ids, outages, limit):
    """Worst rho now, or now and after each outage, one id at a time; infinite where the grid is cut in two."""
    model, screen, _, _ = grid
    rows = screen.rows(lin, ids, outages)
    worst = screen.rho(lin, rows).max(axis=1)
    worst = worst + CERTAIN * (worst >= limit)
    for o, k in enumerate(outages):
        response = lin.factors.H[:, k] + rows.D[:, 0] * rows.R[:, 0, o : o + 1] + rows.D[:, 1] * rows.R[:, 1, o : o + 1]
        room = 1.0 - response[:, k]
        cut = room < MIN_ROOM
        flows = rows.flows + response * np.where(cut, 0.0, rows.flows[:, k] / np.where(cut, 1.0, room))[:, None]
        reactive = lin.state.q_or + lin.kappa * (flows - lin.state.p_or)
        rho = np.sqrt((flows**2 + reactive**2) * lin.c2) * (lin.state.topo[model.line_or_pos] > 0)
        rho[:, k] = 0.0
        worst = np.maximum(worst, np.where(cut & (np.abs(rows.flows[:, k]) > CUT_OFF_LINEAR), ISLAND, rho.max(axis=1)))
    return np.where(rows.usable, worst, np.inf)


@pytest.mark.parametrize(("secured", "limit"), [(False, np.inf), (True, np.inf), (True, 1.5)])
@pytest.mark.parametrize("seed", [0, 3, 5, 6])
def test_ranking_keeps_the_best_of_what_brute_force_finds(grid, seed, secured, limit):
    model, screen, injection, catalogue = grid
    rng, lin = linearised(grid, seed)
    outages = None
    lost = np.zeros(0, np.int64)
    if secured:
        attackable = sorted(rng.choice(model.n_line, 5, replace=False))
        outages = Security(model, CriticalSettings(), attackable).screen_order(lin)
        lost = outages.lines
        assert lost.size
    every = np.full(catalogue.size, -1.0)
    screen.rank(lin, 1, outages=outages, limit=limit, dtype=np.float64, every=every)
    seen = np.flatnonzero((every >= 0) & (every < 1e29))
    ids = rng.choice(seen, min(seen.size, 800), replace=False)
    expected = brute_force(grid, lin, ids, lost, limit)
    np.testing.assert_allclose(np.sqrt(every[ids]), expected, rtol=1e-9)
    keep = 10
    best, rho = screen.rank(lin, keep, outages=outages, limit=limit)
    for s in range(model.n_sub):
        own = seen[catalogue.substation[seen] == s]
        mine = catalogue.substation[best] == s
        assert mine.sum() == min(keep, own.size)
        np.testing.assert_allclose(np.sort(rho[mine]), np.sort(np.sqrt(every[own]))[:keep], rtol=1e-4)
    assert (np.diff(rho) >= 0).all()


@pytest.mark.parametrize("most", [5, 40])
@pytest.mark.parametrize("seed", [0, 3, 5, 6])
def test_what_is_missing_is_not_among_the_best_of_all(grid, seed, most):
    model, screen, _, _ = grid
    rng, lin = linearised(grid, seed)
    attackable = sorted(rng.choice(model.n_line, 5, replace=False))
    outages = Security(model, CriticalSettings(), attackable).screen_order(lin)
    ids, rho = screen.rank(lin, 10, outages=outages)
    few, rho_few = screen.rank(lin, 10, outages=outages, most=most)
    last = rho[min(most, rho.size) - 1]
    assert few[rho_few <= last].tolist() == ids[rho <= last].tolist()
    assert few.size < ids.size or ids.size <= 2 * most  # something was left out where there was enough of it


@pytest.mark.parametrize("seed", range(6))
def test_ranking_leaves_out_islands_and_the_present_topology_and_nothing_else(grid, seed):
    model, screen, injection, catalogue = grid
    rng, lin = linearised(grid, seed)
    every = np.full(catalogue.size, -1.0)
    screen.rank(lin, 1, dtype=np.float64, every=every)
    topo = lin.state.topo
    for s in rng.choice(screen.substations, 8, replace=False):
        own = np.arange(catalogue.offsets[s], catalogue.offsets[s + 1])
        ids = rng.choice(own, min(own.size, 30), replace=False)
        seen: dict[bytes, list[int]] = {}
        live = topo[catalogue.positions[s]] > 0
        for row, action in zip(catalogue.bus_rows(ids), ids, strict=True):
            buses, now = row[catalogue.positions[s]][live], topo[catalogue.positions[s]][live]
            same = (buses == now).all() or (buses != now).all()
            usable = dense_flows(model, topology_after(model, row, topo, False), injection) is not None
            ranked = 0 <= every[action] < 1e29
            if same or not usable:
                assert not ranked
            else:
                seen.setdefault((buses == buses[0]).tobytes(), []).append(ranked)
        if live.all():
            assert all(all(ranked) for ranked in seen.values())
        else:  # of those that differ in a line out of service only, one at most
            assert all(sum(ranked) <= 1 for ranked in seen.values())


def test_everything_moved_to_the_other_bus_changes_nothing(grid):
    model, screen, injection, catalogue = grid
    state = lossless_state(model, np.ones(model.dim_topo, np.int32), injection, np.random.default_rng(0))
    lin = FactorCache(model).linearise(state)
    first = np.array([catalogue.offsets[s] for s in screen.substations], np.int64)
    assert (catalogue.kind[first] == SUBSTATION).all()
    rows = screen.rows(lin, first, np.zeros(0, np.int64))
    assert rows.usable.all()
    np.testing.assert_allclose(rows.flows, np.tile(state.p_or, (first.size, 1)), atol=1e-9)
    moved = state.topo.copy()
    moved[model.elements(int(screen.substations[0]))] = 2
    there = FactorCache(model).linearise(lossless_state(model, moved, injection, np.random.default_rng(0)))
    np.testing.assert_allclose(screen.rows(there, first, np.zeros(0, np.int64)).flows, rows.flows, atol=1e-9)
