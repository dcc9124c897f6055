"""Plain dense DC power flow of a topology, written without any of the engine's linear algebra."""

import numpy as np

from ace_ray.grid.physics.model import GridModel, GridState


def dense_flows(model: GridModel, topo: np.ndarray, injection: np.ndarray) -> np.ndarray | None:
    """DC flows [L] origin to extremity, or None if an injection or a line in use is cut off from the slack.

    Args:
        topo: [T] bus of each element, -1 out of service.  injection: [T] MW; the slack balances.
    """
    nodes: dict[tuple[int, int], int] = {}
    for position in range(model.dim_topo):
        if topo[position] > 0:
            nodes.setdefault((int(model.pos_sub[position]), int(topo[position])), len(nodes))
    node = [nodes.get((int(model.pos_sub[t]), int(topo[t])), -1) for t in range(model.dim_topo)]
    B, P = np.zeros((len(nodes), len(nodes))), np.zeros(len(nodes))
    ends = []
    for line in range(model.n_line):
        i, j = node[model.line_or_pos[line]], node[model.line_ex_pos[line]]
        ends.append((i, j))
        if i >= 0 and j >= 0:
            B[[i, j], [i, j]] += model.susceptance[line]
            B[[i, j], [j, i]] -= model.susceptance[line]
    for t in range(model.dim_topo):
        if model.pos_line[t] < 0:
            P[node[t]] += injection[t]
    slack = node[model.slack_pos]
    reached = {slack}
    while True:
        more = {b for a, b in ends + [(j, i) for i, j in ends] if a in reached and b >= 0} - reached
        if not more:
            break
        reached |= more
    if len(reached) < len(nodes):
        return None
    keep = [n for n in range(len(nodes)) if n != slack]
    theta = np.zeros(len(nodes))
    theta[keep] = np.linalg.solve(B[np.ix_(keep, keep)], P[keep])
    drop = [theta[i] - theta[j] if i >= 0 and j >= 0 else 0.0 for i, j in ends]
    return model.susceptance * drop


def lossless_state(model: GridModel, topo: np.ndarray, injection: np.ndarray, rng: np.random.Generator) -> GridState:
    """A state whose measurements obey the DC equations exactly, with made-up voltages and reactive flows."""
    flows = dense_flows(model, topo, injection)
    assert flows is not None
    injection = injection.copy()
    injection[model.slack_pos] = 0.0
    injection[model.slack_pos] = -injection.sum()
    alive = topo[model.line_or_pos] > 0
    kv = np.where(alive, 100.0, 0.0)
    q = np.where(alive, rng.normal(0, 10, model.n_line), 0.0)
    rho = 1000 / np.sqrt(3) * np.sqrt(flows**2 + q**2) / (100.0 * model.thermal_limit)
    return GridState(topo, injection, flows, q, -flows, kv, kv, rho, model.thermal_limit)


def random_topology(model: GridModel, rng: np.random.Generator, splits: int, lines_out: int) -> np.ndarray:
    """A connected topology [T] with some substations split and lines out of service."""
    while True:
        topo = np.ones(model.dim_topo, np.int32)
        for s in rng.choice(np.flatnonzero(np.diff(model.sub_ptr) >= 4), splits, replace=False):
            topo[model.elements(s)] = rng.integers(1, 3, model.elements(s).size)
        for line in rng.choice(model.n_line, lines_out, replace=False):
            topo[[model.line_or_pos[line], model.line_ex_pos[line]]] = -1
        if dense_flows(model, topo, np.zeros(model.dim_topo)) is not None:
            return topo


def topology_after(model: GridModel, row: np.ndarray, topo: np.ndarray, is_switch: bool) -> np.ndarray:
    """Topology [T] after an action's row of buses; lines out of service stay so unless they are switched."""
    return np.where((row != 0) & (is_switch | (topo > 0)), row, topo).astype(np.int32)
