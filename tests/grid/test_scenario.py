"""A scenario has the length that it says, and a snapshot is the same state in every process."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ace_ray.config.errors import DataError
from ace_ray.config.grid import GridSettings
from ace_ray.domain import Snapshot
from ace_ray.grid.physics.catalogue import Catalogue
from ace_ray.grid.scenarios.environment import make_env
from ace_ray.grid.scenarios.rebuild import rebuild
from ace_ray.grid.scenarios.scenario import Scenario, episode_length, reset_to

pytestmark = pytest.mark.unit

FIELDS = ("rho", "topo_vect", "gen_p", "gen_q", "load_p", "v_or", "time_before_cooldown_line", "time_next_maintenance")


def digest(obs) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(getattr(obs, f)).tobytes() for f in FIELDS)).hexdigest()


def future(env, obs, steps: int) -> list[str]:
    """Digests of the state and of the steps that follow: opponent and maintenance have to agree as well."""
    seen = [digest(obs)]
    for _ in range(steps):
        obs, _, done, info = env.step(env.action_space())
        seen.append(digest(obs) + str(info["opponent_attack_line"]))
        if done:
            break
    return seen


# Run in another process: rebuild each snapshot and tell what was seen.
_PROBE = """
import json, sys
sys.path.insert(0, sys.argv[2])
from test_scenario import future
from ace_ray.config.grid import GridSettings
from ace_ray.grid.physics.catalogue import Catalogue
from ace_ray.grid.scenarios.environment import make_env
from ace_ray.domain import Snapshot
from ace_ray.grid.scenarios.rebuild import rebuild
from ace_ray.grid.scenarios.scenario import Scenario
seen = []
for text in json.loads(sys.argv[1]):
    snapshot = Snapshot.from_json(text, Scenario)
    env = make_env(GridSettings(env=snapshot.scenario.env, data=snapshot.scenario.data))
    seen.append(future(env, rebuild(env, Catalogue.from_env(env), snapshot), 120))
print(json.dumps(seen))
"""


def in_another_process(snapshots: list[Snapshot]) -> list[list[str]]:
    told = json.dumps([snapshot.to_json() for snapshot in snapshots])
    command = [sys.executable, "-W", "ignore", "-c", _PROBE, told, str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def played(env, catalogue, scenario: Scenario, steps: int, seed: int) -> Snapshot:
    """Play an action now and then; the actions are mild (small substations), so that the grid lives on."""
    rng, log = np.random.default_rng(seed), []
    obs = reset_to(env, scenario)
    mild = np.flatnonzero((catalogue.kind == 2) & (catalogue.substation != 16))
    for step in range(steps):
        ids: tuple[int, ...] = ()
        if step % 9 == 4:
            legal = mild[catalogue.legal(obs, mild)]
            for action_id in rng.permutation(legal)[:20]:
                simulated, _, done, _ = obs.simulate(catalogue.action((int(action_id),), obs))
                if not done and simulated.rho.max() < 0.95:
                    ids = (int(action_id),)
                    log.append((step, ids))
                    break
        obs, _, done, _ = env.step(catalogue.action(ids, obs))
        assert not done, "choose another seed"
    return Snapshot(scenario, tuple(log), steps)


def test_snapshots_are_the_same_states_bit_for_bit_in_another_process():
    """Two environments with different opponents; planned maintenance in both, actions and attacks on the way."""
    snapshots, here = [], []
    for name, chronic, seed, start, steps in (
        ("l2rpn_neurips_2020_track1", "Scenario_august_dummy", 3, 40, 80),
        ("l2rpn_icaps_2021", "Scenario_april_17_wk1", 2, 0, 14),
    ):
        env = make_env(GridSettings(env=name, data="shipped"))
        catalogue = Catalogue.from_env(env)
        scenario = Scenario(name, "shipped", chronic, seed, start)
        snapshot = played(env, catalogue, scenario, steps, seed=0)
        assert len(snapshot.log) >= steps // 9
        leave_in_an_attack(env, Scenario(name, "shipped", chronic, 3, 0, 200))
        seen = future(env, rebuild(env, catalogue, snapshot), 120)
        assert any("True" in step for step in seen), "no attack within reach: choose another seed"
        snapshots.append(snapshot)
        here.append(seen)
        env.close()
    assert here == in_another_process(snapshots)


def leave_in_an_attack(env, scenario: Scenario) -> None:
    """Play until the opponent attacks, and leave the episode there."""
    reset_to(env, scenario)
    info: dict = {"opponent_attack_line": None}
    while info["opponent_attack_line"] is None:
        _, _, done, info = env.step(env.action_space())
        assert not done, "choose another seed"


@pytest.mark.parametrize("start", [0, 1, 2, 130])
def test_an_episode_left_in_an_attack_leaves_no_trace_in_the_next(env, start):
    """With `init ts` Grid2Op steps once before it resets the opponent: the old attack would open the new episode."""
    name = "l2rpn_neurips_2020_track1"
    scenario = Scenario(name, "shipped", "Scenario_february_dummy", 8, start)
    fresh = make_env(GridSettings(env=name, data="shipped"))
    expected = future(fresh, reset_to(fresh, scenario), 60)
    fresh.close()
    leave_in_an_attack(env, Scenario(name, "shipped", "Scenario_august_dummy", 3, 0, 200))
    assert future(env, reset_to(env, scenario), 60) == expected


def scenario_args(scenario: Scenario, seed: int) -> tuple:
    return scenario.env, scenario.data, scenario.chronic, seed


@pytest.mark.parametrize(("start", "cap"), [(0, 12), (1, 9), (2, 9), (850, None), (850, 100), (700, 3)])
def test_an_episode_lasts_duration_minus_start_or_its_cap(env, start, cap):
    scenario = Scenario("l2rpn_neurips_2020_track1", "shipped", "Scenario_february_dummy", 11, start, cap)
    obs, done, steps = reset_to(env, scenario), False, 0
    assert obs.current_step == 0
    while not done:
        obs, _, done, info = env.step(env.action_space())
        steps += 1
    assert not info["exception"]
    assert steps == episode_length(env, scenario) == min(864 - start, cap or 864)


def test_the_start_step_is_the_row_of_the_chronic(env):
    whole = Scenario("l2rpn_neurips_2020_track1", "shipped", "Scenario_february_dummy", 0)
    obs = reset_to(env, whole)
    rows = [obs.load_p.copy()]
    for _ in range(5):
        obs, *_ = env.step(env.action_space())
        rows.append(obs.load_p.copy())
    for start in (1, 2, 3, 5):
        later = reset_to(env, Scenario(*scenario_args(whole, 0), start_step=start))
        assert np.array_equal(later.load_p, rows[start])


def test_scenarios_and_snapshots_survive_json(scenario):
    snapshot = Snapshot(scenario, ((3, (17,)), (9, (400, 4))), 12)
    assert Scenario.from_json(scenario.to_json()) == scenario
    assert Snapshot.from_json(snapshot.to_json(), Scenario) == snapshot
    assert Snapshot.from_json(snapshot.to_json(), Scenario).key() == snapshot.key()


def test_the_key_of_a_snapshot_is_that_of_its_state(scenario):
    short = Snapshot(scenario, ((3, (17,)),), 5)
    assert short.key() == Snapshot(scenario, ((3, (17,)), (7, (18,))), 5).key(), "what is played later changes nothing"
    assert short.key() != Snapshot(scenario, ((3, (18,)),), 5).key()
    assert short.key() != Snapshot(scenario, ((3, (17,)),), 6).key()


def test_a_foreign_or_impossible_scenario_is_refused_with_a_remedy(env, scenario):
    name = "l2rpn_neurips_2020_track1"
    for wrong, words in (
        (Scenario("l2rpn_icaps_2021", "shipped", scenario.chronic, 0), "is not of environment"),
        (Scenario(name, "packaged", "jan_1000", 0), "is not of environment"),
        (Scenario(name, "shipped", "jan_1000", 0), "is not in data set"),
        (Scenario(name, "shipped", scenario.chronic, 0, start_step=864), "after the end"),
    ):
        with pytest.raises(DataError, match=words) as caught:
            reset_to(env, wrong)
        assert caught.value.remedy
