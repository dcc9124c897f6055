import numpy as np
import pytest

from ace_ray.agents.expert.overload_sum import stress_after
from ace_ray.grid.physics import kernels
from ace_ray.grid.physics.linear import Factors, _reachable
from ace_ray.grid.physics.model import GridState

pytestmark = pytest.mark.unit
SOFT = 0.5


def stress_of(engine, lin, ids, lines):
    rows = engine.screen.rows(lin, ids, lines)
    return stress_after(lin, rows, rows.flows, lin.reactive(rows.flows), lines, SOFT)


def test_it_is_the_sum_over_lines_of_a_dense_solve_without_the_lost_line(engine, episode_observations):
    obs = episode_observations[3]
    lin = engine.linearise(GridState.from_observation(engine.model, obs))
    lines = engine.opponent.lines
    stress = stress_of(engine, lin, np.array([0]), lines)[0]
    injection = np.linalg.pinv(lin.factors.X) @ lin.theta
    for line, value in zip(lines, stress, strict=True):
        topo = lin.state.topo.copy()
        topo[[engine.model.line_or_pos[line], engine.model.line_ex_pos[line]]] = -1
        after = Factors.of(engine.model, topo)
        ends = lin.factors.node_or[line], lin.factors.node_ex[line]
        carried = lin.factors.b[line] * lin.angle(*ends)  # what the DC model takes off; the measured flow is taken off
        change_of_angle = (after.X @ injection - lin.theta) * lin.state.p_or[line] / carried
        flow = np.zeros(engine.model.n_line)
        for k in np.flatnonzero(after.node_or >= 0):
            change = change_of_angle[after.node_or[k]] - change_of_angle[after.node_ex[k]]
            flow[k] = lin.state.p_or[k] + after.b[k] * change
        assert value == pytest.approx(np.maximum(lin.rho(flow[None])[0] - SOFT, 0.0).sum(), abs=1e-6)
    assert (stress > 0).all()


def test_a_split_that_leaves_a_line_as_the_only_way_is_an_island_after_its_loss(engine, episode_observations):
    obs, model = episode_observations[3], engine.model
    lin = engine.linearise(GridState.from_observation(model, obs))
    lines, catalogue = engine.opponent.lines, engine.catalogue
    ids = np.concatenate([np.arange(*catalogue.offsets[s : s + 2])[:40] for s in (21, 23, 26, 28, 33)])
    ids = ids[catalogue.legal(obs, ids)]
    ids = ids[engine.screen.rows(lin, ids, lines).usable]  # the others cut something off by themselves
    stress, found = stress_of(engine, lin, ids, lines), 0
    for action_id, row in zip(ids, stress, strict=True):
        engine.check.load(obs)
        topo = engine.check.topology_after(engine.check.topo, int(action_id))
        for line, value in zip(lines, row, strict=True):
            without = topo.copy()
            without[[model.line_or_pos[line], model.line_ex_pos[line]]] = -1
            node = np.where(without > 0, model.pos_sub + model.n_sub * (without - 1), -1)
            ends = [np.ascontiguousarray(node[pos]) for pos in (model.line_or_pos, model.line_ex_pos)]
            reached = _reachable(*ends, model.n_node, int(node[model.slack_pos]))
            if abs(lin.state.injection[(node >= 0) & ~reached[node]].sum()) > 1.0:  # MW that the line alone carried
                found += 1
                assert value == kernels.ISLAND
    assert found > 0
