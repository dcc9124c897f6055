"""The power grid as a simulator (`ace_ray.domain.Simulator`): Grid2Op and the decision engine, at any snapshot."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ace_ray.config.grid import CompareSettings, GridSettings
from ace_ray.domain import Transition
from ace_ray.grid import grid2op_internals as internals
from ace_ray.grid.decision_env import DecisionEnv, state_facts
from ace_ray.grid.engine import Decision, DecisionEngine
from ace_ray.grid.observation import GridObservation
from ace_ray.grid.scenarios.episode import is_blackout, playing, step_reward
from ace_ray.grid.scenarios.rebuild import GridSnapshot, Rebuilder
from ace_ray.grid.scenarios.scenario import episode_length


def state_digest(env: Any, obs: GridObservation) -> bytes:
    """Digest of all that the future depends on besides the scenario and the step.

    Topology (with lines in or out), cooldowns, overflow counters, dispatch, and the opponent: its random state, budget
    and running attack. Flows follow from these and the injections, which the step fixes.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in (
        obs.topo_vect,
        obs.time_before_cooldown_line,
        obs.time_before_cooldown_sub,
        obs.timestep_overflow,
        obs.actual_dispatch,
        obs.target_dispatch,
        obs.storage_charge,
        obs.curtailment_limit,
        internals.protection_counter(env),
    ):
        digest.update(np.ascontiguousarray(part).tobytes())
    for holder in internals.opponent_states(env):
        for _, value in sorted(vars(holder).items()):
            if isinstance(value, np.random.RandomState):
                state = value.get_state(legacy=False)["state"]
                digest.update(state["key"].tobytes() + repr(state["pos"]).encode())
            elif isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
                digest.update(value.tobytes())
            elif np.isscalar(value):
                digest.update(repr(value).encode())
    return digest.digest()


class GridBranch:
    """A copy of the environment at a snapshot (`ace_ray.domain.Branch`)."""

    def __init__(
        self, env: Any, obs: GridObservation, snapshot: GridSnapshot, length: int, settings: GridSettings
    ) -> None:
        self.obs = obs
        self._env = env
        self._step = snapshot.step
        self._length = length
        self._chronic = snapshot.scenario.chronic
        self._settings = settings

    def step(self, action: Any) -> tuple[float, bool]:
        """Plays a Grid2Op action; returns the reward of the step and whether the grid went black."""
        with playing(self._chronic):
            self.obs, _, done, info = self._env.step(action)
        self._step += 1
        blackout = is_blackout(done, info, self._step, self._length, self._chronic)
        return step_reward(self.obs, blackout, self._settings.reward), blackout

    def digest(self) -> bytes:
        """See `state_digest`."""
        return state_digest(self._env, self.obs)

    def close(self) -> None:
        """Frees the copy."""
        self._env.close()


class GridSimulator:
    """See the module.

    Args:
        env: an environment of its own, reset and stepped here; nobody else may touch it.
        engine: decision engine of that grid; may be shared.
        settings: of the grid; None: the engine's.
        keep: copies of the environment kept near decisions (about 2 MB each).
    """

    def __init__(self, env: Any, engine: DecisionEngine, settings: GridSettings | None = None, keep: int = 12) -> None:
        self.engine = engine
        self.settings = settings or engine.settings
        self.rebuilder = Rebuilder(env, engine.catalogue, keep)

    @property
    def compare(self) -> CompareSettings:
        """See Simulator."""
        return self.settings.compare

    def hold(self, snapshots: Iterable[GridSnapshot]) -> None:
        """See Simulator."""
        self.rebuilder.hold(snapshots)

    def observation(self, snapshot: GridSnapshot) -> Any:
        """Grid2Op's observation at the snapshot; `simulate` works on it."""
        return self.rebuilder.observation(snapshot)

    def facts(self, obs: GridObservation) -> dict[str, Any]:
        """See `state_facts`."""
        return state_facts(obs)

    def length(self, snapshot: GridSnapshot) -> int:
        """Environment steps of the snapshot's scenario."""
        return episode_length(self.rebuilder.env, snapshot.scenario)

    def decide(self, obs: GridObservation, proposals: Sequence[int] = ()) -> Decision:
        """See DecisionEngine; no exploratory slots."""
        return self.engine.decide(obs, proposals)

    def action(self, id: int, decision: Decision, obs: GridObservation) -> Any:
        """A substation move takes the reconnection of the rules along."""
        return self.engine.action(self.engine.together(decision, id), obs)

    def branch(self, snapshot: GridSnapshot) -> GridBranch:
        """See Simulator."""
        length = self.length(snapshot)
        env, obs = self.rebuilder.copy(snapshot)
        return GridBranch(env, obs, snapshot, length, self.settings)

    def transition(self, snapshot: GridSnapshot, decision: Decision, id: int, least: int = 1) -> Transition:
        """See Simulator; the rules act between the decisions, and greedy at them."""
        length = self.length(snapshot)
        grid, obs = self.rebuilder.copy(snapshot)
        try:
            env = DecisionEnv(grid, self.engine, self.settings)
            env.enter(snapshot, obs, decision, length)
            with playing(snapshot.scenario.chronic):
                _, reward, terminated, truncated, info = env.play(self.engine.together(decision, id))
                while not (terminated or truncated) and info["step"] - snapshot.step < least:
                    _, more, terminated, truncated, then = env.step(int(np.argmax(info["decision"].score)))
                    reward += info["discount"] * more
                    info = _joined(info, then)
                return Transition(id, reward, terminated, truncated, info, env.following(truncated))
        finally:
            grid.close()

    def context(self) -> dict[str, Any]:
        """See Simulator: the catalogue, the engine's proposal memory, and the settings that outcomes depend on."""
        return {
            "catalogue": self.engine.catalogue.hash,
            "memory": sorted(int(i) for i in self.engine.memory),
            "settings": self.settings.model_dump(exclude={"data": True, "expert": True, "compare": {"tie", "first"}}),
        }

    def close(self) -> None:
        """Closes the environment."""
        self.rebuilder.env.close()


def _joined(info: dict[str, Any], then: dict[str, Any]) -> dict[str, Any]:
    """The info of two segments of `DecisionEnv` that follow each other, as of one."""
    return {
        **then,
        "steps": info["steps"] + then["steps"],
        "discount": info["discount"] * then["discount"],
        "refused": info["refused"] + then["refused"],
        **{name: info[name] + then[name] for name in ("segment", "rewards", "rho_max")},
    }
