"""Merging, splitting, switching and outages after them, against a dense solve of the really changed network (1e-9)."""

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings

from ace_ray.grid.physics.catalogue import LINE
from ace_ray.grid.physics.kernels import MIN_ROOM
from tests.grid.dc_reference import dense_flows, topology_after
from tests.grid.small_grids import SmallGrid, small_grids

pytestmark = pytest.mark.unit

relative = 1e-9
many = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
NONE = np.zeros(0, np.int64)


def assert_flows(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=relative * max(1.0, np.abs(expected).max()))


def playable(grid: SmallGrid) -> np.ndarray:
    """All ids but the reconnection of a line in service and the disconnection of one that is out."""
    ids = np.arange(grid.catalogue.size)
    switch = grid.catalogue.kind == LINE
    closing = (ids - 1) % 5 > 0
    return ids[~switch | (grid.lin.alive[grid.catalogue.line] != closing)]


def topologies(grid: SmallGrid, ids: np.ndarray):
    rows, switch = grid.catalogue.bus_rows(ids), grid.catalogue.kind[ids] == LINE
    return [topology_after(grid.model, r, grid.lin.state.topo, s) for r, s in zip(rows, switch, strict=True)]


@many
@given(small_grids())
def test_the_angles_and_factors_of_a_topology_are_those_of_the_dense_solve(grid):
    lin, model = grid.lin, grid.model
    angle = lin.theta[lin.factors.node_or] - lin.theta[lin.factors.node_ex]
    assert_flows(
        np.where(lin.alive, model.susceptance * angle, 0.0), dense_flows(model, lin.state.topo, grid.injection)
    )


@many
@given(small_grids())
def test_every_action_of_a_small_grid_gives_the_flows_of_the_changed_network(grid):
    """All partitions and switches: the slack's substation, split ones, all branches moved, islands."""
    ids = playable(grid)
    rows = grid.screen.rows(grid.lin, ids, NONE)
    islands = 0
    for i, after in enumerate(topologies(grid, ids)):
        expected = dense_flows(grid.model, after, grid.injection)
        if expected is None:  # but a line between two unused buses, or one that carried nothing, disturbs no one
            assert not rows.usable[i] or grid.catalogue.kind[ids[i]] == LINE
            islands += 1
            continue
        assert rows.usable[i]
        assert_flows(rows.flows[i], expected)
    event(f"islands: {islands > 0}")


@many
@given(small_grids())
def test_outages_after_every_split_and_merge_give_the_flows_of_the_changed_network(grid):
    model, lin = grid.model, grid.lin
    lines = np.arange(model.n_line)
    ids = playable(grid)
    ids = ids[:: max(1, ids.size // 40)]
    rows = grid.screen.rows(lin, ids, lines)
    compared = 0
    for i, after in enumerate(topologies(grid, ids)):
        if dense_flows(model, after, grid.injection) is None:
            continue
        response = lin.factors.H + np.einsum("jl,jo->lo", rows.D[i], rows.R[i])
        for k in lines[(after[model.line_or_pos] > 0) & (after[model.line_ex_pos] > 0)]:
            without = after.copy()
            without[[model.line_or_pos[k], model.line_ex_pos[k]]] = -1
            expected, room = dense_flows(model, without, grid.injection), 1.0 - response[k, k]
            if expected is None:
                assert room < MIN_ROOM
                continue
            if room < MIN_ROOM:  # what it leaves behind is an empty bus
                assert abs(rows.flows[i, k]) < 1e-6
                continue
            flows = rows.flows[i] + response[:, k] * rows.flows[i, k] / room
            flows[k] = 0.0
            assert_flows(flows, expected)
            compared += 1
    event(f"outages compared: {compared > 0}")


@many
@given(small_grids())
def test_the_ranking_values_every_partition_by_the_flows_of_the_changed_network(grid):
    catalogue, lin = grid.catalogue, grid.lin
    every = np.full(catalogue.size, -1.0)
    grid.screen.rank(lin, 1, dtype=np.float64, every=every)
    ids = np.flatnonzero((every >= 0) & (every < 1e29))
    for action, after in zip(ids, topologies(grid, ids), strict=True):
        expected = dense_flows(grid.model, after, grid.injection)
        assert expected is not None
        reactive = lin.state.q_or + lin.kappa * (expected - lin.state.p_or)
        worst = np.sqrt(np.where(lin.alive, lin.c2 * (expected**2 + reactive**2), 0.0).max())
        assert np.sqrt(every[action]) == pytest.approx(worst, rel=1e-8, abs=1e-9)
