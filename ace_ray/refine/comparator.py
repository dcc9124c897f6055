"""Plays two actions from one rebuilt state and follows them by the same continuation (docs/design.md)."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ace_ray.agents.greedy import Greedy
from ace_ray.config.errors import GridMismatchError
from ace_ray.config.grid import GridSettings
from ace_ray.domain import Outcome, best, pivotal, salvageable, verdict
from ace_ray.grid.engine import Decision, DecisionEngine
from ace_ray.grid.physics.catalogue import LINE
from ace_ray.grid.scenarios.episode import is_blackout, step_reward
from ace_ray.grid.scenarios.scenario import episode_length
from ace_ray.grid.scenarios.snapshot import Snapshot
from ace_ray.refine.rebuild import Rebuilder
from ace_ray.refine.trajectory_cache import Trail, Trails, fingerprint

__all__ = ["Comparator", "Outcome", "best", "pivotal", "salvageable", "verdict"]

DECISIONS_KEPT = 32
OUTCOMES_KEPT = (
    1024  # snapshots whose outcomes are kept: a refiner works on ten at a time, and 14 outcomes are about 2 kB
)


class Comparator:
    """Outcomes of actions at snapshots; validity, weights, labels, gate and evaluation all ask here.

    An action is played together with the reconnection that goes along with it, then rules + greedy (no check) follow
    until H steps are played, the scenario ends or the grid goes black. The environment is exact: opponent and
    maintenance do what they would have done. An outcome depends on snapshot, id and settings alone, so those of the
    last `OUTCOMES_KEPT` snapshots are cached; one that was forgotten is found again by a replay.

    Args:
        env: an environment of its own, reset and stepped here; nobody else may touch it.
        engine: decision engine of that environment; its proposal memory is part of the continuation.
        settings: `compare` sets horizon, tie and the size of the compared set.
        keep: copies of the environment kept near decisions (about 2 MB each).
    """

    def __init__(self, env: Any, engine: DecisionEngine, settings: GridSettings, keep: int = 12) -> None:
        self.engine = engine
        self.settings = settings
        self.rebuilder = Rebuilder(env, engine.catalogue, keep)
        self.replays = 0  # actions followed so far, cached ones not counted
        self.steps = 0  # environment steps played for these
        self.shared_steps = 0  # steps taken over from trails that had passed the same state
        self._continuation = Greedy(env.action_space, engine)
        self._trails = Trails()
        self._outcomes: OrderedDict[str, dict[int, Outcome]] = (
            OrderedDict()
        )  # by snapshot, the last asked for last, and id
        self._decisions: OrderedDict[str, Decision] = OrderedDict()

    # -- states ----------------------------------------------------------------------------------------------------

    def hold(self, snapshots: Iterable[Snapshot]) -> None:
        """Says which snapshots are asked about next: those of one episode then cost one replay together."""
        self.rebuilder.hold(snapshots)

    def observation(self, snapshot: Snapshot) -> Any:
        """The observation at the snapshot."""
        return self.rebuilder.observation(snapshot)

    def decision(self, snapshot: Snapshot) -> Decision:
        """The engine's decision at the snapshot, without proposals or exploratory slots."""
        key = snapshot.key()
        if key not in self._decisions:
            self._decisions[key] = self.engine.decide(self.observation(snapshot))
            while len(self._decisions) > DECISIONS_KEPT:
                self._decisions.popitem(last=False)
        return self._decisions[key]

    def ids(self, snapshot: Snapshot, id: int) -> tuple[int, ...]:
        """Catalogue ids that are played for `id`: a substation move takes the reconnection of the rules along."""
        alone = self.engine.catalogue.kind[id] == LINE
        return (int(id),) if alone else (int(id), *self.decision(snapshot).accompany)

    def compared_set(self, decision: Decision, played: int) -> tuple[int, ...]:
        """C: do-nothing, the played action, and the first `compare.first` legal slots by score, each id once."""
        legal = np.flatnonzero(decision.mask & (decision.ids > 0))
        ranked = legal[np.argsort(-decision.score[legal], kind="stable")][: self.settings.compare.first]
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

    def verdict(self, a: Outcome, b: Outcome) -> str:
        """Of `a` against `b`: 'better', 'tie' or 'worse', at the tie of the settings."""
        return verdict(a, b, self.settings.compare.tie)

    def salvageable(self, outcomes: dict[int, Outcome], played: int) -> bool:
        """See `ace_ray.domain.salvageable`."""
        return salvageable(outcomes, played)

    def pivotal(self, outcomes: dict[int, Outcome]) -> bool:
        """See `ace_ray.domain.pivotal`."""
        return pivotal(outcomes)

    def _known(self, key: str) -> dict[int, Outcome]:
        """The cache of a snapshot, which is now the last to be forgotten."""
        known = self._outcomes.setdefault(key, {})
        self._outcomes.move_to_end(key)
        while len(self._outcomes) > OUTCOMES_KEPT:
            self._outcomes.popitem(last=False)
        return known

    def _follow(self, snapshot: Snapshot, id: int) -> Outcome:
        length = episode_length(self.rebuilder.env, snapshot.scenario)
        until = min(snapshot.step + self.settings.compare.horizon, length)
        env, obs = self.rebuilder.copy(snapshot)
        action = self.engine.action(self.ids(snapshot, id), obs)
        self._continuation.reset(obs)
        self._trails.enter(snapshot.scenario.key())
        trail = Trail(snapshot.step)
        while trail.end < until and not trail.dead:
            obs, _, done, info = env.step(action)
            self.steps += 1
            trail.dead = is_blackout(done, info, trail.end + 1, length, snapshot.scenario.chronic)
            trail.rewards.append(step_reward(obs, trail.dead, self.settings.reward))
            if trail.dead or trail.end == until:
                break
            state = fingerprint(env, obs)
            known = self._trails.future(trail.end, state, until)
            if known is not None:
                rewards, trail.dead = known
                trail.rewards += rewards
                self.shared_steps += len(rewards)
                break
            self._trails.passes(trail, trail.end, state)
            action = self._continuation.act(obs, trail.rewards[-1], done)
        env.close()
        self.replays += 1
        alive = trail.rewards[: len(trail.rewards) - trail.dead]
        span = sum(alive) / len(alive) * (until - snapshot.step) if alive else 0.0
        return Outcome(not trail.dead, len(trail.rewards), float(sum(trail.rewards)), float(span))

    # -- the cache on disk -----------------------------------------------------------------------------------------

    def context(self) -> str:
        """Hash of all that an outcome depends on besides snapshot and id."""
        parts = {
            "catalogue": self.engine.catalogue.hash,
            "memory": sorted(int(i) for i in self.engine.memory),
            "settings": self.settings.model_dump(exclude={"data": True, "expert": True, "compare": {"tie", "first"}}),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

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
