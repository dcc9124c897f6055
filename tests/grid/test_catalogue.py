"""The catalogue names what Grid2Op enumerates, and what it calls legal is legal when played."""

import numpy as np
import pytest

from ace_ray.config.errors import GridMismatchError
from ace_ray.config.grid import GridSettings
from ace_ray.grid.physics.catalogue import SUBSTATION, Catalogue
from ace_ray.grid.scenarios.environment import make_env
from ace_ray.grid.scenarios.scenario import reset_to

pytestmark = pytest.mark.unit


def set_buses(action) -> tuple:
    return tuple(int(b) for b in action.set_bus)


def test_case14_has_exactly_grid2ops_unitary_actions_in_their_order(case14):
    catalogue = Catalogue.from_env(case14)
    theirs = case14.action_space.get_all_unitary_topologies_set(case14.action_space)
    ours = catalogue.bus_rows(np.flatnonzero(catalogue.kind == SUBSTATION))
    assert [set_buses(a) for a in theirs] == [tuple(map(int, row)) for row in ours]


def test_36_substations_have_grid2ops_actions_substation_by_substation(env, catalogue):
    space = env.action_space
    small = [s for s in range(env.n_sub) if env.sub_info[s] <= 8]
    assert len(small) >= 30
    for s in small:
        theirs = [set_buses(a) for a in space.get_all_unitary_topologies_set(space, sub_id=s)]
        ids = np.arange(catalogue.offsets[s], catalogue.offsets[s + 1])
        assert theirs == [tuple(map(int, row)) for row in catalogue.bus_rows(ids)], f"substation {s}"


def test_36_substations_have_66810_partitions_of_which_98_percent_on_substation_16(env, catalogue):
    per_substation = np.diff(catalogue.offsets)
    assert per_substation.sum() == 66_810
    assert per_substation[16] == 65_505
    assert catalogue.size == 1 + 5 * env.n_line + 66_810


def test_the_big_substation_agrees_with_grid2ops_own_check_on_a_sample(env, catalogue):
    space, n = env.action_space, int(env.sub_info[16])
    lines = type(env).get_powerline_id(16)
    first, end = catalogue.offsets[16], catalogue.offsets[17]
    rng = np.random.default_rng(0)
    for code in rng.integers(0, 1 << (n - 1), size=3000):
        buses = 1 + ((int(code) >> np.arange(n - 1, -1, -1)) & 1)
        named = catalogue.find(16, buses) is not None
        assert named == bool(space._is_ok_line(2, buses, lines))
    assert (np.diff(catalogue.code[first:end]) > 0).all()


def test_the_hash_is_the_grids_and_not_the_environments(env, catalogue, case14):
    icaps = make_env(GridSettings(env="l2rpn_icaps_2021", data="shipped"))
    try:
        assert Catalogue.from_env(icaps).hash == catalogue.hash == Catalogue.from_env(env).hash
    finally:
        icaps.close()
    assert Catalogue.from_env(case14).hash != catalogue.hash


def test_ids_are_found_again_from_what_they_describe(env, catalogue):
    rng = np.random.default_rng(1)
    for action_id in rng.choice(np.flatnonzero(catalogue.kind == SUBSTATION), 200):
        told = catalogue.describe(int(action_id))
        buses = list(told["assignment"].values())
        assert list(told["assignment"]) == catalogue.element_names(told["substation"])
        assert catalogue.find(told["substation"], buses) == action_id
        assert catalogue.find(told["substation"], [3 - b for b in buses]) == action_id, "labels swapped"
    for action_id in range(1, 1 + 5 * env.n_line):
        told = catalogue.describe(action_id)
        bus_or, bus_ex = told["assignment"].values()
        assert catalogue.find_line(told["line"], bus_or, bus_or, bus_ex) == action_id
    assert catalogue.find(16, [1, 2]) is None and catalogue.find(99, [1]) is None
    assert catalogue.find_line(99, -1) is None and catalogue.find_line(0, 1, 1, 3) is None


def test_a_load_or_generator_never_stands_alone_on_a_bus(env, catalogue):
    rows = catalogue.bus_rows(np.flatnonzero(catalogue.kind == SUBSTATION))
    lines = np.zeros(env.dim_topo, dtype=bool)
    lines[env.line_or_pos_topo_vect] = lines[env.line_ex_pos_topo_vect] = True
    for bus in (1, 2):
        used, fed = (rows == bus).any(axis=1), ((rows == bus) & lines).any(axis=1)
        assert (used == fed).all()


def test_a_dead_line_voids_nothing_at_its_substations(env, catalogue, scenario):
    """Grid2Op #693: a prebuilt action would also set the dead line's end, and be illegal."""
    obs = reset_to(env, scenario)
    line = next(int(i) for i in range(env.n_line) if env.line_or_to_subid[i] == 16 or env.line_ex_to_subid[i] == 16)
    obs, _, done, info = env.step(catalogue.action((catalogue.find_line(line, -1),), obs))
    assert not done and not obs.line_status[line] and obs.time_before_cooldown_line[line] > 0
    ids = np.arange(catalogue.offsets[16], catalogue.offsets[17])
    legal = ids[catalogue.legal(obs, ids)]
    assert len(legal) > 60_000
    prebuilt = env.action_space(
        {"set_bus": {"substations_id": [(16, catalogue.bus_rows(legal[100:101])[0][obs_of(env, 16)])]}}
    )
    _, _, _, info = env.copy().step(prebuilt)
    assert info["is_illegal"]
    _, _, _, info = env.step(catalogue.action((int(legal[100]),), obs))
    assert not info["is_illegal"] and not info["is_ambiguous"]


def obs_of(env, substation) -> np.ndarray:
    return np.flatnonzero(np.repeat(np.arange(env.n_sub), env.sub_info) == substation)


def test_what_is_not_legal_now_is_left_out_of_an_action(env, catalogue, scenario):
    obs = reset_to(env, scenario)
    two = [int(catalogue.offsets[s]) + 1 for s in (16, 23)]
    assert catalogue.legal(obs, two).all()
    one = catalogue.action(two, obs)
    assert set(np.flatnonzero(one.set_bus)) == set(obs_of(env, 16)), "one substation a step"
    reconnect_live, same_topology = catalogue.find_line(3, 1), catalogue.reference(16)
    assert not catalogue.legal(obs, (reconnect_live, same_topology)).any()
    nothing = catalogue.action((reconnect_live, same_topology, 0), obs)
    assert not nothing.can_affect_something() or nothing == env.action_space()


def test_distinct_keeps_one_id_for_each_effect(case14):
    catalogue = Catalogue.from_env(case14)
    obs = case14.reset(seed=0)
    dead = 3
    obs, _, done, _ = case14.step(catalogue.action((catalogue.find_line(dead, -1),), obs))
    assert not done
    legal, distinct = catalogue.legal(obs), catalogue.distinct(obs)
    assert (distinct <= legal).all() and distinct.sum() < legal.sum()

    def effects(mask):
        seen = []
        for action_id in np.flatnonzero(mask & (catalogue.kind == SUBSTATION)):
            buses = catalogue.action((int(action_id),), obs).set_bus
            live = buses[buses > 0]
            seen.append((int(catalogue.substation[action_id]), tuple(live != live[0])))
        return seen

    kept = effects(distinct)
    assert len(kept) == len(set(kept)) and set(kept) == set(effects(legal))


def test_an_environment_without_topology_actions_is_refused():
    storage = make_env(GridSettings(env="educ_case14_storage", data="shipped"))
    try:
        with pytest.raises(GridMismatchError, match="no topology actions"):
            Catalogue.from_env(storage)
    finally:
        storage.close()
