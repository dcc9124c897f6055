"""Plays two actions from one rebuilt state and follows them by the same continuation (docs/design.md)."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ace_ray.config.errors import GridMismatchError
from ace_ray.domain import Continuation, Decision, Outcome, Simulator, Snapshot, Verdict, verdict
from ace_ray.refine.trajectory_cache import Trajectory, TrajectoryCache

DECISIONS_KEPT = 64
# Snapshots whose outcomes are kept: a refiner works on ten at a time, and 14 outcomes are about 2 kB.
OUTCOMES_KEPT = 1024


class Comparator:
    """Outcomes of actions at snapshots; validity, weights, labels, gate and evaluation all ask here.

    An action is played together with what goes along with it. Then the continuation (on the grid, rules and greedy; see
    `ace_ray.refine.builder`) follows until H steps are played, the scenario ends or the episode fails. The environment
    is exact: opponent and maintenance do what they would have done. An outcome depends on snapshot, id and the
    simulator's context alone, so those of the last `OUTCOMES_KEPT` snapshots are cached; one that was forgotten is
    found again by a replay.

    Args:
        simulator: an environment of its own; its `compare` sets horizon, tie and the size of the compared set.
        continuation: plays on after the compared action.
    """

    def __init__(self, simulator: Simulator, continuation: Continuation) -> None:
        self.simulator = simulator
        self.replays = 0  # actions followed so far, cached ones not counted
        self.steps = 0  # environment steps played for these
        self.shared_steps = 0  # steps taken over from trajectories that had passed the same state
        self._continuation = continuation
        self._trajectories = TrajectoryCache()
        # By snapshot, the last asked for last, and id.
        self._outcomes: OrderedDict[str, dict[int, Outcome]] = OrderedDict()
        self._decisions: OrderedDict[str, Decision] = OrderedDict()

    # -- states ----------------------------------------------------------------------------------------------------

    def hold(self, snapshots: Iterable[Snapshot]) -> None:
        """Says which snapshots are asked about next: those of one episode then cost one replay together."""
        self.simulator.hold(snapshots)

    def observation(self, snapshot: Snapshot) -> Any:
        """The observation at the snapshot."""
        return self.simulator.observation(snapshot)

    def decision(self, snapshot: Snapshot) -> Decision:
        """The engine's decision at the snapshot, without proposals or exploratory slots."""
        key = snapshot.key()
        if key not in self._decisions:
            self._decisions[key] = self.simulator.decide(self.observation(snapshot))
            while len(self._decisions) > DECISIONS_KEPT:
                self._decisions.popitem(last=False)
        return self._decisions[key]

    def compared_set(self, decision: Decision, played: int) -> tuple[int, ...]:
        """C: do-nothing, the played action, and the first `compare.first` legal slots by score, each id once."""
        legal = np.flatnonzero(decision.mask & (decision.ids > 0))
        ranked = legal[np.argsort(-decision.score[legal], kind="stable")][: self.simulator.compare.first]
        return tuple(dict.fromkeys((0, int(played), *(int(i) for i in decision.ids[ranked]))))

    # -- outcomes -----------------------------------------------------------------------------------------------------

    def outcome(self, snapshot: Snapshot, id: int) -> Outcome:
        """The outcome of catalogue id `id` at the snapshot, from the cache where it is known."""
        known = self._known(snapshot.key())
        if int(id) not in known:
            known[int(id)] = self._follow(snapshot, int(id))
        return known[int(id)]

    def outcomes(self, snapshot: Snapshot, ids: Sequence[int]) -> dict[int, Outcome]:
        """The outcomes of several ids, by id."""
        return {int(i): self.outcome(snapshot, i) for i in ids}

    def known(self, snapshot: Snapshot) -> dict[int, Outcome]:
        """The cached outcomes at the snapshot, by id."""
        return dict(self._outcomes.get(snapshot.key(), {}))

    def verdict(self, a: Outcome, b: Outcome) -> Verdict:
        """Of `a` against `b`: 'better', 'tie' or 'worse', at the tie of the settings."""
        return verdict(a, b, self.simulator.compare.tie)

    def _known(self, key: str) -> dict[int, Outcome]:
        """The cache of a snapshot, which is now the last to be forgotten."""
        known = self._outcomes.setdefault(key, {})
        self._outcomes.move_to_end(key)
        while len(self._outcomes) > OUTCOMES_KEPT:
            self._outcomes.popitem(last=False)
        return known

    def _follow(self, snapshot: Snapshot, id: int) -> Outcome:
        until = min(snapshot.step + self.simulator.compare.horizon, self.simulator.length(snapshot))
        branch = self.simulator.branch(snapshot)
        action = self.simulator.action(id, self.decision(snapshot), branch.obs)
        self._continuation.reset(branch.obs)
        self._trajectories.enter(snapshot.scenario.key())
        trajectory = Trajectory(snapshot.step)
        while trajectory.end < until and not trajectory.dead:
            reward, trajectory.dead = branch.step(action)
            self.steps += 1
            trajectory.rewards.append(reward)
            if trajectory.dead or trajectory.end == until:
                break
            state = branch.digest()
            known = self._trajectories.future(trajectory.end, state, until)
            if known is not None:
                rewards, trajectory.dead = known
                trajectory.rewards += rewards
                self.shared_steps += len(rewards)
                break
            self._trajectories.passes(trajectory, trajectory.end, state)
            action = self._continuation.act(branch.obs, reward)
        branch.close()
        self.replays += 1
        alive = trajectory.rewards[: len(trajectory.rewards) - trajectory.dead]
        span = sum(alive) / len(alive) * (until - snapshot.step) if alive else 0.0
        return Outcome(not trajectory.dead, len(trajectory.rewards), float(sum(trajectory.rewards)), float(span))

    # -- the cache on disk -----------------------------------------------------------------------------------------

    def context(self) -> str:
        """Hash of all that an outcome depends on besides snapshot and id."""
        return hashlib.sha256(json.dumps(self.simulator.context(), sort_keys=True).encode()).hexdigest()[:16]

    def rows(self) -> list[dict[str, Any]]:
        """The cache as JSON-able rows `{context, snapshot, id, outcome}`."""
        context = self.context()
        return [
            {"context": context, "snapshot": key, "id": id, "outcome": outcome.to_json()}
            for key, outcomes in self._outcomes.items()
            for id, outcome in outcomes.items()
        ]

    def load_rows(self, rows: Iterable[dict[str, Any]]) -> None:
        """Takes up rows that `rows` wrote.

        Raises:
            GridMismatchError: made with another catalogue, memory or other settings: its outcomes would not be ours.
        """
        context = self.context()
        for row in rows:
            if row["context"] != context:
                raise GridMismatchError(
                    f"cached outcomes were made under {row['context']}, the comparator here is {context}",
                    "use the grid settings that they were made with, or make them again",
                )
            self._known(row["snapshot"])[int(row["id"])] = Outcome.from_json(row["outcome"])
