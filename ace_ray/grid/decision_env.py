"""The decision environment: a semi-MDP whose states are the critical ones (docs/design.md).

Between two decisions the rules act. One transition spans the k environment steps from a decision to the next one (or
to the end): its reward is Σ γ^i r_i for i = 0..k-1 and its discount γ^k. `terminated` means blackout, `truncated`
the end of the scenario, from whose last state a learner bootstraps.
"""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from ace_ray.config.grid import GridSettings
from ace_ray.grid.engine import Decision, DecisionEngine
from ace_ray.grid.observation import GridObservation
from ace_ray.grid.scenarios.episode import is_blackout, is_refused, step_reward
from ace_ray.grid.scenarios.rebuild import GridSnapshot, rebuild
from ace_ray.grid.scenarios.scenario import Scenario, episode_length, reset_to
from ace_ray.grid.scenarios.scenario_sets import parse
from ace_ray.schema import no_observation, observation, observation_space


def state_facts(obs: GridObservation) -> dict[str, Any]:
    """Columns of a transition record (replay/records.py) that say how loaded the grid was at the decision."""
    rho = np.asarray(obs.rho)
    return {"rho_before": float(rho.max()), "rho_line": int(rho.argmax()), "overloads": int((rho >= 1.0).sum())}


class DecisionEnv(gymnasium.Env):
    """Gymnasium environment over slots: K actions, of which a mask says which are legal.

    Observations are dicts of the columns that a network reads (`schema.OBSERVED`): `context` float32 [C], `slots`
    float32 [K, F], `mask` bool [K], `score` float32 [K]; all zeros (mask: slot 0 only) where there is no decision,
    after the end of an episode.

    Every `info` has: `decision` (a `Decision`, or None after the end), `steps` k, `discount` γ^k, `segment` (the
    `ActionLog` of these k steps), `step` (environment steps since the scenario's start), `length`, `survival`
    (step / length), `rewards` and `rho_max` (one per step), `exception` (names of what the last step reported) and
    `refused` (steps whose action was illegal or ambiguous; 0 unless something is broken).
    """

    def __init__(
        self, env: Any, engine: DecisionEngine, settings: GridSettings, rng: np.random.Generator | None = None
    ) -> None:
        """
        Args:
            env: From `make_env`; this object owns its state from now on.
            engine: Decision engine of the same grid.
            settings: Settings of the grid; its reward and discount are used here.
            rng: Draws exploratory slots; None: none, decisions are then deterministic.
        """
        self.env = env
        self.engine = engine
        self.settings = settings
        self.rng = rng
        self.observation_space = observation_space(engine.spec)
        self.action_space = gymnasium.spaces.Discrete(engine.spec.slots)
        self._scenario: Scenario | None = None
        self._decision: Decision | None = None
        self._grid_obs: Any = None
        self._log: list[tuple[int, tuple[int, ...]]] = []
        self._step = 0
        self._length = 0

    # -- gymnasium --------------------------------------------------------------------------------------------------

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Start an episode and let the rules play to its first critical state.

        Args:
            seed: Seeds the exploratory slots, if given and this environment draws any.
            options: `scenario`: the `Scenario` to play, or the text of a set, whose first one is played; or `snapshot`:
                start in the middle of one.

        Returns:
            Observation and info of the first decision. If there is none before the end, `info["decision"]` is None
            and the caller resets again.
        """
        super().reset(seed=seed)
        if seed is not None and self.rng is not None:
            self.rng = np.random.default_rng(seed)
        options = options or {}
        snapshot: GridSnapshot | None = options.get("snapshot")
        scenario = snapshot.scenario if snapshot else options.get("scenario", "train:1")
        if isinstance(scenario, str):
            scenario = parse(scenario, self.settings).scenarios[0]
        self._scenario, self._decision = scenario, None
        self._length = episode_length(self.env, scenario)
        if snapshot:
            self._grid_obs = rebuild(self.env, self.engine.catalogue, snapshot)
            self._log = [(step, ids) for step, ids in snapshot.log if step < snapshot.step]
            self._step = snapshot.step
        else:
            self._grid_obs = reset_to(self.env, scenario)
            self._log, self._step = [], 0
        self._decide()
        obs, _, _, _, info = self._result(_Segment(self.settings.reward.gamma), None)
        if self._decision is not None:
            return obs, info
        obs, _, _, _, info = self._play(self.engine.rules.calm_action(self._grid_obs))
        return obs, info

    def step(self, slot: int) -> tuple[dict, float, bool, bool, dict]:
        """Play a slot of the present decision and follow the rules to the next one.

        Returns:
            Observation, reward Σ γ^i r_i, terminated (blackout), truncated (end of the scenario), info.
        """
        decision = self._decision
        if decision is None:
            raise ValueError("there is no decision to answer: call reset")
        if not 0 <= slot < len(decision.mask) or not decision.mask[slot]:
            raise ValueError(f"slot {slot} is masked: choose one where mask is true")
        return self._play(self.engine.ids_for(decision, int(slot)))

    def play(self, ids: Sequence[int]) -> tuple[dict, float, bool, bool, dict]:
        """Like `step`, with catalogue ids in place of a slot; what is not legal now is left out."""
        if self._decision is None:
            raise ValueError("there is no decision to answer: call reset")
        return self._play(tuple(ids))

    # -- state ------------------------------------------------------------------------------------------------------

    @property
    def decision(self) -> Decision | None:
        """The present decision; None before the first reset and after the end."""
        return self._decision

    @property
    def grid_observation(self) -> Any:
        """Grid2Op's observation of the present state."""
        return self._grid_obs

    def snapshot(self) -> GridSnapshot:
        """The present state, a few hundred bytes from which any process rebuilds it."""
        if self._scenario is None:
            raise ValueError("there is no state before the first reset")
        return GridSnapshot(scenario=self._scenario, log=tuple(self._log), step=self._step)

    def following(self, truncated: bool) -> Decision | None:
        """What a transition that has just been played leads to.

        The next decision; at the end of a scenario the last state, from which a learner bootstraps, though nobody
        decides there; None after a blackout.
        """
        return self.engine.decide(self._grid_obs) if truncated else self._decision

    def enter(self, snapshot: GridSnapshot, obs: GridObservation, decision: Decision, length: int) -> None:
        """Go on from a snapshot at which `env` stands already, such as a copy that was brought there.

        Args:
            snapshot: Where `env` stands.
            obs: Its observation there.
            decision: What `step` and `play` answer.
            length: `episode_length` of the scenario (a copy does not know its data set).
        """
        self._scenario, self._decision, self._grid_obs = snapshot.scenario, decision, obs
        self._log = [(step, ids) for step, ids in snapshot.log if step < snapshot.step]
        self._step, self._length = snapshot.step, length

    # -- playing ----------------------------------------------------------------------------------------------------

    def _play(self, ids: tuple[int, ...]) -> tuple[dict, float, bool, bool, dict]:
        """Play `ids` now, then the rules, until a decision is asked for or the episode ends."""
        scenario, segment = self._scenario, _Segment(self.settings.reward.gamma)
        assert scenario is not None
        self._decision = None
        while True:
            action = self.engine.catalogue.action(ids, self._grid_obs)
            played = tuple(int(i) for i in ids if i > 0)
            if played:
                segment.log.append((self._step, played))
            self._grid_obs, _, done, info = self.env.step(action)
            self._step += 1
            blackout = is_blackout(done, info, self._step, self._length, scenario.chronic)
            segment.add(step_reward(self._grid_obs, blackout, self.settings.reward), self._grid_obs, info)
            if done or self._step >= self._length:
                self._log.extend(segment.log)
                return self._result(segment, "blackout" if blackout else "end")
            if self._decide():
                self._log.extend(segment.log)
                return self._result(segment, None)
            ids = self.engine.rules.calm_action(self._grid_obs)

    def _decide(self) -> bool:
        """Ask the engine for a decision if the present state is critical."""
        if self.engine.critical(self._grid_obs) is None:
            return False
        self._decision = self.engine.decide(self._grid_obs, rng=self.rng)
        return True

    def _result(self, segment: "_Segment", ending: str | None) -> tuple[dict, float, bool, bool, dict]:
        decision = self._decision
        info = {
            "decision": decision,
            "steps": len(segment.rewards),
            "discount": segment.discount,
            "segment": tuple(segment.log),
            "step": self._step,
            "length": self._length,
            "survival": self._step / self._length,
            "rewards": tuple(segment.rewards),
            "rho_max": tuple(segment.rho_max),
            "exception": segment.exception,
            "refused": segment.refused,
        }
        observed = no_observation(self.engine.spec) if decision is None else observation(decision)
        return observed, segment.reward, ending == "blackout", ending == "end", info


class _Segment:
    """What happens between two decisions: Σ γ^i r_i, γ^k and the log."""

    def __init__(self, gamma: float) -> None:
        self.gamma = gamma
        self.reward = 0.0
        self.discount = 1.0
        self.rewards: list[float] = []
        self.rho_max: list[float] = []
        self.log: list[tuple[int, tuple[int, ...]]] = []
        self.exception: tuple[str, ...] = ()
        self.refused = 0

    def add(self, reward: float, obs: GridObservation, info: dict) -> None:
        self.reward += self.discount * reward
        self.discount *= self.gamma
        self.rewards.append(reward)
        self.rho_max.append(float(obs.rho.max()))
        self.exception = tuple(f"{type(e).__name__}: {e}" for e in info["exception"])
        self.refused += is_refused(info)
