"""A rollout worker without Ray: plays episodes, returns rows, and says what a blackout left to think over.

It never waits for a language model and never copies an environment: what is to be refined leaves as a snapshot. An
episode whose chronic cannot be read or played is given up and reported with the chronic's name.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ace_ray.config.run import RunSettings
from ace_ray.domain import Snapshot
from ace_ray.grid.decision_env import DecisionEnv, state_facts
from ace_ray.grid.engine import Decision
from ace_ray.grid.scenarios.episode import EPISODE_ERRORS, playing
from ace_ray.grid.scenarios.scenario import Scenario
from ace_ray.replay.episodes import log_to_json
from ace_ray.replay.pending import PendingRefinement, Reason
from ace_ray.replay.rows import IdBlock, transition_row
from ace_ray.schema import States

FAILURES_IN_A_ROW = 5


@dataclass
class Fragment:
    """What one `collect` brought.

    Attributes:
        states: decision states that the transitions refer to and that were not handed out before.
        transitions: records (replay/records.py).
        pending: decisions that blackouts left to think over.
        episodes: finished episodes: scenario, survival (share of the scenario), reward, decisions, steps, length,
            blackout, hard_start.
        given_up: (chronic, error) of each episode that could not be read or played.
    """

    states: States = field(default_factory=States.none)
    transitions: list[dict[str, Any]] = field(default_factory=list)
    pending: list[PendingRefinement] = field(default_factory=list)
    episodes: list[dict[str, Any]] = field(default_factory=list)
    given_up: list[tuple[str, str]] = field(default_factory=list)


@dataclass
class _Played:
    """A decision that may have to be thought over."""

    id: int
    snapshot: Snapshot
    catalogue_id: int
    reward: float


class RolloutWorker:
    """See the module.

    Args:
        env: decision environment, this worker's own; its `rng` draws the exploratory slots.
        scenarios: endless training scenarios.
        choose: picks a legal slot of a decision.
        reserve: gives away ids (ReplayCore.reserve).
        hard_start: a decision before an old blackout, or None (ReplayCore.hard_start).
        settings: of the run.
        name: of the worker, in its rows and in the names of its episodes.
        seed: of the choice between new scenarios and hard starts.
        clock: wall clock; injected by tests.
    """

    def __init__(
        self,
        env: DecisionEnv,
        scenarios: Iterator[Scenario],
        choose: Callable[[Decision], int],
        reserve: Callable[[int], int],
        hard_start: Callable[[], Snapshot | None],
        settings: RunSettings,
        name: str = "worker-0",
        seed: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.env = env
        self.policy_version = 0
        self._scenarios = scenarios
        self._choose = choose
        self._hard_start = hard_start
        self._settings = settings
        self._name = name
        self._rng = np.random.default_rng(seed)
        self._clock = clock
        self._ids = IdBlock(reserve)
        self._prefix = f"{name}-{int(clock() * 1000):x}"
        self._episodes = 0
        self._failures = 0
        self._out = Fragment()
        self._states: list[States] = []
        # Of the episode at hand:
        self._last: deque[_Played] = deque(maxlen=settings.refine.lookback)
        self._state_id: int | None = None  # None: its first decision is still to be stored
        self._decisions = 0
        self._reward = 0.0
        self._hard = False
        self._episode = ""
        self._chronic = ""

    def collect(self, decisions: int, seconds: float) -> Fragment:
        """Plays until so many decisions were made or so much time went by, whichever is first.

        The episode at hand goes on in the next call. A transition is handed out with the state that follows it.
        After several episodes in a row that could not be played it returns early, so that the caller learns of them.
        """
        self._out, self._states = Fragment(), []
        until = self._clock() + seconds
        self._failures = 0
        while len(self._out.transitions) < decisions and self._clock() < until and self._failures < FAILURES_IN_A_ROW:
            try:
                if self.env.decision is None:
                    self._begin()
                else:
                    self._decide()
            except EPISODE_ERRORS as error:
                self._give_up(error)
        self._out.states = States.concat(self._states)
        return self._out

    def _begin(self) -> None:
        self._forget()
        self._episodes += 1
        self._episode = f"{self._prefix}-{self._episodes}"
        hard = self._rng.random() < self._settings.rollout.hard_starts
        start = self._hard_start() if hard else None
        self._hard = start is not None
        options: dict[str, Any]
        if start is None:
            scenario = next(self._scenarios)
            options = {"scenario": scenario}
        else:
            scenario, options = start.scenario, {"snapshot": start}
        self._chronic = scenario.chronic
        with playing(self._chronic):
            _, info = self.env.reset(options=options)
        if info["decision"] is None:
            self._finish(info, blackout=info["step"] < info["length"])

    def _decide(self) -> None:
        decision, snapshot = self.env.decision, self.env.snapshot()
        assert decision is not None
        facts = state_facts(self.env.grid_observation)
        slot = self._choose(decision)
        with playing(self._chronic):
            _, reward, terminated, truncated, info = self.env.step(slot)
            following = self.env.following(truncated)
        state_id = self._state_id
        if state_id is None:
            state_id = self._ids.take()
            self._states.append(States.of(state_id, decision))
            facts["lead"] = log_to_json(snapshot.log)
        next_id = -1
        if following is not None:
            next_id = self._ids.take()
            self._states.append(States.of(next_id, following))
        row = transition_row(
            id=state_id,
            state_id=state_id,
            next_id=next_id,
            snapshot=snapshot,
            decision=decision,
            slot=slot,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            info=info,
            episode=self._episode,
            source="rl",
            policy_version=self.policy_version,
            worker=self._name,
            **facts,
        )
        self._out.transitions.append(row)
        self._reward += float(sum(info["rewards"]))
        self._decisions += 1
        self._ask_about(_Played(state_id, snapshot, row["catalogue_id"], reward), terminated)
        self._state_id = next_id
        if terminated or truncated:
            self._finish(info, terminated)

    def _ask_about(self, played: _Played, terminated: bool) -> None:
        """What is worth a second thought: the last decisions before a blackout, or (paper) those with r < r_low."""
        refine = self._settings.refine
        if refine.refiner == "off":
            return
        self._last.append(played)
        if refine.trigger == "paper":
            if played.reward < refine.r_low:
                self._pend(played, "paper", 0 if terminated else -1, self._clock())
        elif terminated:
            now = self._clock()
            for distance, one in enumerate(reversed(self._last)):
                self._pend(one, "lookback", distance, now)

    def _pend(self, played: _Played, reason: Reason, distance: int, priority: float) -> None:
        self._out.pending.append(
            PendingRefinement(
                id=self._ids.take(),
                parent_id=played.id,
                snapshot=played.snapshot,
                played=played.catalogue_id,
                reason=reason,
                distance=distance,
                priority=priority,
                chain=self._episode,
                reward=played.reward,
            )
        )

    def _finish(self, info: dict[str, Any], blackout: bool) -> None:
        self._out.episodes.append(
            {
                "scenario": self.env.snapshot().scenario.key(),
                "survival": info["survival"],
                "reward": self._reward,
                "decisions": self._decisions,
                "steps": info["step"],
                "length": info["length"],
                "blackout": blackout,
                "hard_start": self._hard,
            }
        )
        self._failures = 0

    def _give_up(self, error: BaseException) -> None:
        self._failures += 1
        self._out.given_up.append((self._chronic, f"{type(error).__name__}: {error}"))
        self._forget()

    def _forget(self) -> None:
        self._last.clear()
        self._state_id = None
        self._decisions = 0
        self._reward = 0.0
        self._hard = False
        self._episode = ""
