"""The decision environment tells exactly what a plain step loop would: rewards, discounts, endings, actions."""

from dataclasses import dataclass

import numpy as np
import pytest

from ace_ray.config.errors import DataError
from ace_ray.config.grid import GridSettings, RewardSettings, RuleSettings
from ace_ray.grid.decision_env import DecisionEnv
from ace_ray.grid.engine import Decision, EngineSpec
from ace_ray.grid.physics.catalogue import SUBSTATION
from ace_ray.grid.rules import Rules
from ace_ray.grid.scenarios.episode import is_blackout, is_refused, step_reward
from ace_ray.grid.scenarios.rebuild import rebuild
from ace_ray.grid.scenarios.scenario import Scenario, episode_length, reset_to

pytestmark = pytest.mark.unit

NAME = "l2rpn_neurips_2020_track1"
GAMMA = 0.97
SETTINGS = GridSettings(env=NAME, data="shipped", reward=RewardSettings(gamma=GAMMA))


@dataclass
class EveryFewSteps:
    """Stands in for the decision engine: asks every few steps and offers four legal actions."""

    catalogue: object
    every: int
    offer: bool = True

    def __post_init__(self):
        self.rules = Rules(self.catalogue, RuleSettings())
        self.spec = EngineSpec(slots=6, slot_features=2, context_features=3, lines=59, outages=10)
        small = np.isin(self.catalogue.substation, (1, 4, 9, 13, 21, 26, 28))
        self._pool = np.flatnonzero((self.catalogue.kind == SUBSTATION) & small)

    def critical(self, obs):
        return "overloaded" if obs.current_step % self.every == 0 else None

    def decide(self, obs, proposals=(), rng=None):
        legal = self._pool[self.catalogue.legal(obs, self._pool)]
        tried = np.random.default_rng(obs.current_step).permutation(legal)[: 12 if self.offer else 0]
        picked = [i for i in tried if self._is_mild(obs, int(i))][:4]
        ids = np.full(6, -1, dtype=np.int32)
        ids[0], ids[1 : 1 + len(picked)] = 0, picked
        mask = ids >= 0
        score = np.where(mask, -np.arange(6), -1e9).astype(np.float32)
        rows = np.zeros((6, 2), np.float32)
        context = np.array([obs.current_step, obs.rho.max(), len(picked)], np.float32)
        none = np.zeros((6, 59), np.float32)
        return Decision(
            obs.current_step, "overloaded", ids, mask, score, rows, context, none, none[:, :10], accompany=()
        )

    def _is_mild(self, obs, action_id):
        simulated, _, done, _ = obs.simulate(self.catalogue.action((action_id,), obs))
        return not done and simulated.rho.max() < 0.92

    def ids_for(self, decision, slot):
        return (int(decision.ids[slot]),)


def plain_loop(env, engine, scenario, choose):
    """The same episode by hand: one row a decision (start step, rewards until the next, ending, log)."""
    obs, length, step, done = reset_to(env, scenario), episode_length(env, scenario), 0, False
    rows, before = [], []
    while not done:
        if engine.critical(obs):
            decision = engine.decide(obs)
            ids = engine.ids_for(decision, choose(decision))
            rows.append({"step": step, "rewards": [], "log": [], "ending": None})
        else:
            ids = engine.rules.calm_action(obs)
        if any(ids):
            (rows[-1]["log"] if rows else before).append((step, ids))
        obs, _, done, info = env.step(engine.catalogue.action(ids, obs))
        step += 1
        dead = done and step < length
        if rows:
            load, production = obs.load_p.sum(), obs.gen_p.sum()
            rows[-1]["rewards"].append(-1.0 if dead else float(load / production) - 0.9)
            if done:
                rows[-1]["ending"] = "blackout" if dead else "end"
    return rows, step


def decisions(env, engine, scenario, choose):
    decision_env = DecisionEnv(env, engine, SETTINGS)
    _, info = decision_env.reset(options={"scenario": scenario})
    rows = []
    while info["decision"] is not None:
        start = info["step"]
        obs, reward, terminated, truncated, info = decision_env.step(choose(info["decision"]))
        rows.append((start, reward, terminated, truncated, info, obs))
    return rows, info


def first_slots(decision) -> int:
    """Do nothing at first, then the first action offered."""
    return 1 if decision.step > 8 and decision.mask[1] else 0


@pytest.mark.parametrize(
    ("scenario", "every", "ending"),
    [
        (Scenario(NAME, "shipped", "Scenario_august_dummy", 7), 6, "blackout"),  # inside a rule phase
        (Scenario(NAME, "shipped", "Scenario_august_dummy", 3, 0, 33), 6, "end"),  # inside a rule phase
        (Scenario(NAME, "shipped", "Scenario_august_dummy", 3, 0, 30), 6, "end"),  # where the next decision would be
        (Scenario(NAME, "shipped", "Scenario_february_dummy", 3, 840), 5, "end"),  # the chronic's own end
    ],
)
def test_a_transition_is_what_a_plain_loop_sums_up(env, catalogue, scenario, every, ending):
    engine = EveryFewSteps(catalogue, every)
    expected, steps = plain_loop(env, engine, scenario, first_slots)
    rows, last = decisions(env, engine, scenario, first_slots)
    assert len(rows) == len(expected) >= 3
    assert expected[-1]["ending"] == ending
    for (start, reward, terminated, truncated, info, obs), row in zip(rows, expected, strict=True):
        k = len(row["rewards"])
        assert start == row["step"] and info["steps"] == k and info["step"] == start + k
        assert reward == pytest.approx(sum(GAMMA**i * r for i, r in enumerate(row["rewards"])), abs=1e-9)
        assert info["rewards"] == pytest.approx(row["rewards"], abs=1e-6)
        assert info["discount"] == pytest.approx(GAMMA**k)
        assert info["segment"] == tuple(row["log"])
        assert (terminated, truncated) == (row["ending"] == "blackout", row["ending"] == "end")
        assert (info["decision"] is None) == (row["ending"] is not None) == (not obs["context"].any())
        assert len(info["rho_max"]) == k and info["refused"] == 0
    assert last["survival"] == pytest.approx(steps / episode_length(env, scenario))
    assert any(row["log"] for row in expected), "nothing was ever played"
    assert bool(last["exception"]) == (ending == "blackout")
    if scenario.max_steps == 33 or ending == "blackout":
        assert rows[-1][4]["steps"] != every, "the ending was to come inside a rule phase"


def test_an_episode_without_a_critical_state_has_no_decision(env, catalogue):
    scenario = Scenario(NAME, "shipped", "Scenario_august_dummy", 3, 1, 20)
    engine = EveryFewSteps(catalogue, every=10**6)
    engine.critical = lambda obs: None
    obs, info = DecisionEnv(env, engine, SETTINGS).reset(options={"scenario": scenario})
    assert info["decision"] is None and info["survival"] == 1.0 and info["steps"] == 20
    assert obs["mask"].tolist() == [True] + [False] * 5


def test_a_snapshot_of_a_decision_leads_to_the_same_decision_and_the_same_future(env, catalogue):
    scenario = Scenario(NAME, "shipped", "Scenario_august_dummy", 3, 0, 60)
    engine = EveryFewSteps(catalogue, every=6)
    decision_env = DecisionEnv(env, engine, SETTINGS)
    _, info = decision_env.reset(options={"scenario": scenario})
    for _ in range(4):
        _, _, _, _, info = decision_env.step(first_slots(info["decision"]))
    snapshot, rho, ids = decision_env.snapshot(), decision_env.grid_observation.rho.copy(), info["decision"].ids
    assert snapshot.step == info["step"] and snapshot.log
    then = [decision_env.step(first_slots(info["decision"]))[1]]
    then.append(decision_env.step(0)[1])
    assert np.array_equal(rebuild(env, catalogue, snapshot).rho, rho)
    _, info = decision_env.reset(options={"snapshot": snapshot})
    assert np.array_equal(info["decision"].ids, ids) and info["step"] == snapshot.step
    assert decision_env.snapshot() == snapshot
    again = [decision_env.play((int(ids[first_slots(info["decision"])]),))[1], decision_env.step(0)[1]]
    assert again == then


def test_a_masked_slot_or_a_step_before_the_reset_is_an_error(env, catalogue, scenario):
    decision_env = DecisionEnv(env, EveryFewSteps(catalogue, every=6, offer=False), SETTINGS)
    with pytest.raises(ValueError, match="call reset"):
        decision_env.step(0)
    decision_env.reset(options={"scenario": scenario})
    for slot in (1, 5, 6, -1):
        with pytest.raises(ValueError, match="is masked"):
            decision_env.step(slot)


def test_the_observation_is_one_of_the_space_with_the_real_engine(env, engine, scenario):
    from dataclasses import replace

    decision_env = DecisionEnv(env, engine, GridSettings(env=NAME, data="shipped"), rng=np.random.default_rng(0))
    obs, info = decision_env.reset(options={"scenario": replace(scenario, max_steps=150)})
    decided = 0
    while info["decision"] is not None and decided < 15:
        assert decision_env.observation_space.contains({**obs, "mask": obs["mask"].astype(np.int8)})
        assert obs["mask"][0] and np.isfinite(obs["slots"]).all() and np.isfinite(obs["context"]).all()
        obs, reward, terminated, truncated, info = decision_env.step(int(np.argmax(obs["score"])))
        assert np.isfinite(reward) and info["refused"] == 0
        decided += 1
    assert decided >= 2


def test_a_blackout_is_an_exception_and_an_early_end_without_one_is_an_error():
    class Grid:
        load_p, gen_p = np.array([50.0, 40.0]), np.array([100.0])

    from grid2op.Exceptions import BackendError, IllegalAction

    def info(*errors):
        return {"exception": list(errors), "is_illegal": bool(errors), "is_ambiguous": False}

    assert not is_blackout(False, info(IllegalAction("")), 3, 10, "week")
    assert is_blackout(True, info(BackendError("")), 3, 10, "week")
    assert is_blackout(True, info(IllegalAction("")), 3, 10, "week"), "a redispatch that ends the game"
    assert is_blackout(True, info(BackendError("")), 10, 10, "week"), "a blackout at the very last step"
    assert not is_blackout(True, info(), 10, 10, "week")
    assert not is_blackout(True, info(IllegalAction("")), 10, 10, "week")
    with pytest.raises(DataError, match="'week' is over at step 9 of 10"):
        is_blackout(True, info(), 9, 10, "week")
    assert is_refused(info(IllegalAction(""))) and not is_refused(info())
    assert step_reward(Grid, False, RewardSettings()) == pytest.approx(0.0)
    assert step_reward(Grid, True, RewardSettings(blackout=-3.0)) == -3.0
