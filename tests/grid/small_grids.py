"""Small invented grids in random topologies, for Hypothesis: parallel lines, taps, bridges and dead ends among them."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from ace_ray.grid.physics.catalogue import Catalogue
from ace_ray.grid.physics.linear import FactorCache, Linearisation
from ace_ray.grid.physics.model import GridModel
from ace_ray.grid.physics.screen import Screen
from tests.grid.dc_reference import dense_flows, lossless_state


@dataclass(frozen=True)
class SmallGrid:
    """A grid, its catalogue and one linearised state of it that obeys the DC equations exactly."""

    model: GridModel
    catalogue: Catalogue
    screen: Screen
    lin: Linearisation
    injection: np.ndarray  # [T] MW


@st.composite
def small_grids(draw: st.DrawFn) -> SmallGrid:
    """3 to 6 substations in one piece, up to 3 of them split, up to 2 lines out of service."""
    n_sub = draw(st.integers(3, 6))
    tree = [(draw(st.integers(0, s - 1)), s) for s in range(1, n_sub)]
    pair = st.tuples(st.integers(0, n_sub - 1), st.integers(1, n_sub - 1)).map(lambda p: (p[0], sum(p) % n_sub))
    lines = tree + draw(st.lists(pair, min_size=2, max_size=6))
    lines.append(lines[draw(st.integers(0, len(lines) - 1))])  # one parallel pair at least
    loads = draw(st.lists(st.integers(0, n_sub - 1), min_size=1, max_size=4))
    gens = draw(st.lists(st.integers(0, n_sub - 1), min_size=1, max_size=3))
    storage = draw(st.lists(st.integers(0, n_sub - 1), max_size=1))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    model, catalogue = _build(n_sub, lines, loads, gens, storage, rng)
    topo = np.ones(model.dim_topo, np.int32)
    for s in draw(st.lists(st.integers(0, n_sub - 1), max_size=3, unique=True)):
        elements = model.elements(s)
        topo[elements] = draw(st.lists(st.integers(1, 2), min_size=elements.size, max_size=elements.size))
    for line in draw(st.lists(st.integers(0, len(lines) - 1), max_size=2, unique=True)):
        topo[[model.line_or_pos[line], model.line_ex_pos[line]]] = -1
    injection = np.where(model.pos_line < 0, rng.normal(0, 50, model.dim_topo), 0.0)
    assume(dense_flows(model, topo, injection) is not None)
    state = lossless_state(model, topo, injection, rng)
    return SmallGrid(model, catalogue, Screen(model, catalogue), FactorCache(model).linearise(state), state.injection)


def _build(
    n_sub: int, lines: list, loads: list, gens: list, storage: list, rng: np.random.Generator
) -> tuple[GridModel, Catalogue]:
    n_line = len(lines)
    ends = [a for a, _ in lines], [b for _, b in lines]
    owner = np.array([*loads, *gens, *storage, *ends[0], *ends[1]])
    place = np.empty(owner.size, np.int32)
    place[np.argsort(owner, kind="stable")] = np.arange(owner.size)  # elements of a substation lie together
    cuts = np.cumsum([len(loads), len(gens), len(storage), n_line])
    load_pos, gen_pos, storage_pos, or_pos, ex_pos = np.split(place, cuts)
    pos_sub = np.sort(owner).astype(np.int32)
    pos_line, pos_sign = np.full(owner.size, -1, np.int32), np.zeros(owner.size, np.int32)
    pos_line[or_pos] = pos_line[ex_pos] = np.arange(n_line)
    pos_sign[or_pos], pos_sign[ex_pos] = 1, -1
    taps = np.where(rng.random(n_line) < 0.3, rng.uniform(0.9, 1.1, n_line), 1.0)
    model = GridModel(
        n_sub=n_sub,
        n_line=n_line,
        n_gen=len(gens),
        n_load=len(loads),
        n_storage=len(storage),
        dim_topo=owner.size,
        line_or_sub=np.array(ends[0], np.int32),
        line_ex_sub=np.array(ends[1], np.int32),
        line_or_pos=or_pos,
        line_ex_pos=ex_pos,
        gen_pos=gen_pos,
        load_pos=load_pos,
        storage_pos=storage_pos,
        gen_sub=np.array(gens, np.int32),
        load_sub=np.array(loads, np.int32),
        pos_sub=pos_sub,
        pos_line=pos_line,
        pos_sign=pos_sign,
        susceptance=rng.uniform(100.0, 5000.0, n_line) / taps,
        own_admittance=np.full(n_line, 10.0 - 1000.0j),
        mutual_admittance=np.full(n_line, -10.0 + 1000.0j),
        mutual_back_admittance=np.full(n_line, -10.0 + 1000.0j),
        far_admittance=np.full(n_line, 10.0 - 1000.0j),
        nominal_kv=np.full(n_line, 100.0),
        thermal_limit=rng.uniform(200.0, 2000.0, n_line),
        slack_gens=np.array([0], np.int32),
        slack_sub=gens[0],
        slack_pos=int(gen_pos[0]),
        sub_ptr=np.searchsorted(pos_sub, np.arange(n_sub + 1)).astype(np.int32),
        sub_elements=np.arange(owner.size, dtype=np.int32),
    )
    layout = SimpleNamespace(
        n_busbar_per_sub=2,
        alertable_line_ids=(),
        n_sub=n_sub,
        n_line=n_line,
        dim_topo=owner.size,
        sub_info=np.bincount(owner, minlength=n_sub),
        line_or_pos_topo_vect=or_pos,
        line_ex_pos_topo_vect=ex_pos,
        load_pos_topo_vect=load_pos,
        gen_pos_topo_vect=gen_pos,
        storage_pos_topo_vect=storage_pos,
        **{f"name_{kind}": [] for kind in ("sub", "line", "load", "gen", "storage")},
    )
    return model, Catalogue(layout, lambda: None, max_substations=1, max_lines=1)
