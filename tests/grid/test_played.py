"""Mask, screen, AC check and security against what really happens when an action is played, on every kind of grid.

Where ACE_TEST_DATA names the folder of development data sets, those are played too. ACE_TEST_PLAYS (default 1500) is
the number of mask-legal actions played on each grid, ACE_TEST_STATES (default 8) that of the states compared; a grid
that comes again (with other rules or data) gets a quarter.
"""

import os
from dataclasses import replace
from pathlib import Path

import grid2op
import numpy as np
import pytest
from lightsim2grid import LightSimBackend

from ace_ray.config.errors import AceError, DataError, GridMismatchError
from ace_ray.config.grid import GridSettings
from ace_ray.grid.engine import DecisionEngine
from ace_ray.grid.physics.catalogue import LINE, NOOP, SUBSTATION, Catalogue
from ace_ray.grid.physics.model import GridModel
from ace_ray.grid.scenarios.environment import environment_folder, make_env
from ace_ray.grid.scenarios.scenario import Scenario, reset_to
from tests.grid.played import beginnings, compare

pytestmark = pytest.mark.unit

PLAYS = int(os.environ.get("ACE_TEST_PLAYS", "1500"))
STATES = int(os.environ.get("ACE_TEST_STATES", "8"))
DATA = Path(grid2op.__file__).parent / "data"
OTHERS = ["rte_case5_example", "rte_case14_test", "l2rpn_icaps_2021", "l2rpn_wcci_2020", "l2rpn_neurips_2020_track2/x1"]

# Environment, and what the median and 99th percentile of |linear - played| of the max rho may reach after random moves.
# What the linear screen does not see is reactive power: a bus that parts from its generators draws it from far away.
SHIPPED = {
    "l2rpn_case14_sandbox": ("l2rpn_case14_sandbox", 0.05, 1.5),
    "l2rpn_neurips_2020_track1": ("l2rpn_neurips_2020_track1", 0.01, 1.5),
    "l2rpn_wcci_2022_dev": ("l2rpn_wcci_2022_dev", 0.005, 1.0),
    "l2rpn_idf_2023": ("l2rpn_idf_2023", 0.005, 1.0),
}
SETS = {
    "36sub/generated_weeks": ("l2rpn_neurips_2020_track1", 0.01, 1.5),
    "36sub/icaps_2021_weeks": ("l2rpn_icaps_2021", 0.01, 1.5),
    "36sub/wcci_2020_months": ("l2rpn_wcci_2020", 0.01, 1.5),
    "118sub/wcci_2022_weeks": ("l2rpn_wcci_2022_dev", 0.005, 1.0),
}
GRIDS = SHIPPED | SETS
ONCE = ("l2rpn_case14_sandbox", "l2rpn_neurips_2020_track1", "l2rpn_idf_2023")


@pytest.fixture(params=list(GRIDS))
def grid(request):
    """Name, environment and engine of a shipped grid, or of a grid on a development data set."""
    name = request.param
    data = str(request.getfixturevalue("test_data") / name) if name in SETS else "shipped"
    settings = GridSettings(env=GRIDS[name][0], data=data)
    environment = make_env(settings)
    yield name, environment, DecisionEngine(environment, settings)
    environment.close()


def share(name: str, count: int) -> int:
    """A grid that comes again gets a quarter."""
    return count if name in ONCE else count // 4


def spread(values) -> str:
    return (
        f"n {len(values)}, median {np.median(values):.1e}, 99 % {np.percentile(values, 99):.1e}" if values else "none"
    )


def test_what_is_predicted_is_what_happens_when_it_is_played(grid, record_property):
    name, env, engine = grid
    states = max(4, share(name, STATES))
    found = compare(env, engine, states, per_state=5, seed=0)
    for key in ("ac", "screen", "newton", "exact_outage", "linear_outage"):
        record_property(key, spread(getattr(found, key)))
    record_property("called wrongly", f"{np.mean(found.called_wrongly):.3f}")
    record_property("met", f"dark {found.dark}, tripped {found.tripped}, {found.met}")
    assert len(found.ac) >= 2 * states
    assert len(found.exact_outage) >= states // 2
    assert max(found.ac) < 1e-4
    assert max(found.exact_outage) < 1e-4
    _, median, p99 = GRIDS[name]
    assert np.median(found.screen) < median
    assert np.percentile(found.screen, 99) < p99
    assert len(found.newton) >= states
    assert np.median(found.newton) < median
    assert np.percentile(found.newton, 99) < p99
    assert sum(found.called_wrongly) <= max(2, len(found.called_wrongly) // 5)
    assert found.met["split"] > 0
    assert found.met["line out"] > 0
    assert not env.n_storage or found.met["storage"] > 0


def test_mask_legal_actions_are_played_without_one_illegal_ambiguous_or_void(grid, record_property):
    """Opponent, maintenance, cooldowns, lines out, split substations and combined actions are all met on the way."""
    name, env, engine = grid
    rng, played, plays, planned = np.random.default_rng(0), 0, share(name, PLAYS), False
    met = dict.fromkeys(("line out", "split", "both", "combined", "switch", "slot"), 0)
    met |= dict.fromkeys(("maintenance", "attack", "cooldown"), 0)  # if the grid has any
    for obs in beginnings(env, seed=0):
        done = False
        while not done and played < plays:
            slot = rng.random() < 0.05
            ids = drawn_slot(engine, obs, rng) if slot else drawn(engine.catalogue, obs, rng)
            before = obs.topo_vect.copy()
            met["line out"] += not obs.line_status.all()
            met["split"] += bool((before == 2).any())
            met["both"] += not obs.line_status.all() and bool((before == 2).any())
            met["combined"] += len(ids) > 1
            met["switch"] += bool((engine.catalogue.kind[list(ids)] == LINE).any())
            met["slot"] += slot
            met["maintenance"] += bool((obs.time_next_maintenance == 0).any())
            planned |= bool((obs.time_next_maintenance > 0).any())
            met["cooldown"] += bool(obs.time_before_cooldown_sub.any())
            obs, _, done, info = env.step(engine.action(ids, obs))
            played += 1
            met["attack"] += info["opponent_attack_line"] is not None
            told = [engine.catalogue.describe(i) for i in ids]
            assert not info["is_illegal"] and not info["is_ambiguous"], (told, info["exception"])
            changed = (obs.topo_vect != before).any() or (info["disc_lines"] >= 0).any()
            assert done or ids == (0,) or changed, f"void: {told}"
        if played == plays:
            break
    record_property("played", f"{played}: " + ", ".join(f"{key} {n / played:.3f}" for key, n in met.items()))
    rare = {
        "attack": type(env._opponent).__name__ != "BaseOpponent" and plays >= 1000,
        "cooldown": env.parameters.NB_TIMESTEP_COOLDOWN_SUB > 0,
        "maintenance": planned and plays >= 1000,
    }
    assert min(n for key, n in met.items() if rare.get(key, True)) > 0, met


def drawn(catalogue: Catalogue, obs, rng) -> tuple[int, ...]:
    """A substation action (substations equally likely), now and then with or instead of it a line switch."""
    legal = catalogue.legal(obs)
    substations, lines = (np.flatnonzero(legal & (catalogue.kind == kind)) for kind in (SUBSTATION, LINE))
    ids = []
    if len(substations) and rng.random() < 0.8:
        chosen = rng.choice(np.unique(catalogue.substation[substations]))
        ids.append(int(rng.choice(substations[catalogue.substation[substations] == chosen])))
    if len(lines) and (not ids or rng.random() < 0.2):
        ids.append(int(rng.choice(lines)))
    return tuple(ids) or (0,)


def drawn_slot(engine: DecisionEngine, obs, rng) -> tuple[int, ...]:
    """What goes with a random slot of those that the mask allows."""
    decision = engine.decide(obs)
    assert engine.catalogue.legal(obs, decision.ids[decision.mask]).all()
    ids = engine.ids_for(decision, int(rng.choice(np.flatnonzero(decision.mask))))
    return ids if len(ids) == 1 or engine.catalogue.kind[ids[0]] != NOOP else ids[1:]


def test_lines_that_an_attack_still_holds_are_masked_though_their_cooldown_is_over():
    """Opponents of several areas renew their attacks step by step; what the mask hides is under attack a step later."""
    settings = GridSettings(env="l2rpn_idf_2023", data="shipped")
    env = make_env(settings)
    catalogue = Catalogue.from_env(env)
    obs, done, hidden, offered = env.reset(seed=0, options={"time serie id": 0}), False, 0, set()
    while not done and obs.current_step < 150:
        dead = np.flatnonzero(~obs.line_status & (obs.time_before_cooldown_line == 0))
        legal = catalogue.legal(obs, [catalogue.find_line(int(line), 1) for line in dead])
        offered |= set(dead[legal].tolist())
        obs, _, done, info = env.step(env.action_space())
        if (~legal).any():
            assert info["opponent_attack_line"][dead[~legal]].all()
            hidden += 1
    env.close()
    assert hidden >= 12
    assert offered  # what has been out for longer may be tried: nothing tells how long an attack lasts


def test_a_scenario_that_goes_black_before_its_first_observation_is_named():
    settings = GridSettings(env="l2rpn_idf_2023", data="shipped")
    env = make_env(settings)
    dead = Scenario("l2rpn_idf_2023", "shipped", "2035-08-20_0", env_seed=188070709, start_step=457)
    with pytest.raises(DataError, match="over before it begins"):
        reset_to(env, dead)
    assert reset_to(env, replace(dead, start_step=300)).rho.max() < 1  # and the environment serves on
    env.close()


@pytest.mark.parametrize("name", OTHERS)
def test_every_other_shipped_grid_is_decided_and_played_on(name):
    settings = GridSettings(env=name, data="shipped")
    env = make_env(settings)
    engine, rng = DecisionEngine(env, settings), np.random.default_rng(0)
    played = 0
    for obs in beginnings(env, seed=0):
        decision = engine.decide(obs)
        assert decision.mask.sum() > 5
        assert np.isfinite(decision.slots).all()
        done = False
        while not done and played % 20 < 19:
            ids = drawn(engine.catalogue, obs, rng)
            obs, _, done, info = env.step(engine.action(ids, obs))
            assert not info["is_illegal"] and not info["is_ambiguous"]
            played += 1
        played += 1
        if played >= 60:
            break
    env.close()


@pytest.mark.parametrize("name", ["educ_case14_redisp", "l2rpn_neurips_2020_track2", "blank", "l2rpn_2019"])
def test_what_cannot_be_decided_on_is_refused_with_a_remedy(name):
    settings = GridSettings(env=str(DATA / name), data="shipped")
    with pytest.raises(AceError) as refused:
        DecisionEngine(make_env(settings), settings)
    assert refused.value.remedy


def test_three_busbars_are_refused_with_a_remedy():
    folder = environment_folder("l2rpn_case14_sandbox")
    env = grid2op.make(str(folder), test=True, backend=LightSimBackend(), n_busbar=3)
    for make in (
        lambda: DecisionEngine(env, GridSettings()),
        lambda: GridModel.from_env(env, env.backend._grid.copy()),
        lambda: Catalogue.from_env(env),
    ):
        with pytest.raises(GridMismatchError, match="3") as refused:
            make()
        assert "n_busbar=2" in refused.value.remedy
    env.close()
