"""The replay as one plain object: table, shards, limiter, pending refinements, proposal memory, counters.

Decision: everything that has to survive is a record in the shards, and everything else is derived from them. Opening a
run's folder therefore *is* the resume: the table, the queue, the counters, the hard starts and the proposal memory are
built again from what was sealed, and nothing has to be kept consistent beside it. The number of learner updates alone
belongs to the learner's checkpoint (`set_updates`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ace_ray.config.errors import ConfigError
from ace_ray.config.run import RunSettings
from ace_ray.domain import Domain, Snapshot
from ace_ray.replay import records
from ace_ray.replay.compaction import compact
from ace_ray.replay.counters import RefinementCounters
from ace_ray.replay.episodes import HARD_STARTS, FollowedEpisodes
from ace_ray.replay.limiter import UpdateLimiter
from ace_ray.replay.pending import PendingQueue, PendingRefinement, RefinementResult
from ace_ray.replay.resume import restore
from ace_ray.replay.shards import LogIdentity, ShardLog
from ace_ray.replay.table import ReplayTable
from ace_ray.schema import States

MEMORY_SIZE = 512
# Skipped at each opening: ids that were given away but never sealed may still be in a living worker's hands.
ID_GAP = 1 << 20
TRIES = 3  # refiners that may die over one decision before it is given up


class ReplayCore:
    """See replay/actor.py for the calls and who makes them.

    Args:
        folder: `<run>/replay`.
        settings: of the run; replay, mixing, refine, critic and seed are read.
        identity: environment, catalogue hash and sizes of the states.
        domain: reads the scenarios and snapshots of the records.
        clock: wall clock in seconds; injected by tests.

    Raises:
        ConfigError: capacities that cannot hold what refinement pins.
        GridMismatchError, RunFolderError: see ShardLog.
    """

    def __init__(
        self,
        folder: Path,
        settings: RunSettings,
        identity: LogIdentity,
        domain: Domain,
        clock: Callable[[], float] = time.time,
    ) -> None:
        replay, refine = settings.replay, settings.refine
        pinned = replay.refined_capacity + (refine.queue if refine.refiner != "off" else 0)
        if replay.capacity < pinned + 16:
            raise ConfigError(
                f"replay.capacity={replay.capacity} cannot hold the originals of {replay.refined_capacity} refined and "
                f"{refine.queue} pending decisions",
                f"set replay.capacity to {pinned + 16} or more, or lower refine.queue",
            )
        self.settings = settings
        self.table = ReplayTable(identity.shape, replay, settings.mixing, settings.seed)
        self.log = ShardLog(folder, identity, replay.shard_rows, replay.shard_seconds)
        self.limiter = UpdateLimiter(replay.updates_per_decision, replay.updates_band, replay.warmup)
        self.queue = PendingQueue(refine.queue, refine.advantage_share, settings.seed)
        self.counters = RefinementCounters()
        self.sources: Counter[str] = Counter()
        self.updates = 0
        self.edits = 0
        self.criticised = 0
        self.critic_errors: Counter[str] = Counter()
        self._clock = clock
        self._next_id = 0
        self._memory: dict[int, None] = {}  # catalogue ids confirmed better, the latest last
        self._taken: dict[str, list[PendingRefinement]] = {}
        self._given: Counter[int] = Counter()
        critic = settings.critic.source != "off" and refine.refiner != "off"
        self._episodes = FollowedEpisodes(
            refine.lookback, settings.critic.every if critic else 0, settings.seed, domain
        )
        self._domain = domain
        self._compacted = 0
        self._restore()

    # --- rollout --------------------------------------------------------------------------------------------------

    def reserve(self, n: int) -> int:
        """Gives away n ids; returns the first."""
        first = self._next_id
        self._next_id += n
        return first

    def store(
        self,
        states: States,
        transitions: Sequence[Mapping[str, Any]],
        pending: Sequence[PendingRefinement] = (),
    ) -> dict[str, Any]:
        """Stores decisions of a rollout worker and what a blackout left to think over; returns `limits()`."""
        rows = [dict(row, time=row.get("time") or self._clock()) for row in transitions]
        self._record(states, rows)
        if rows:
            self.table.append(states, records.table_columns(rows))
        for row in rows:
            self._episodes.follow(row, self._critic_works)
        self.push(pending)
        self._seal_if_due()
        return self.limits()

    def hard_start(self) -> Snapshot | None:
        """One of the last `refine.lookback` decisions before a blackout (`HardStarts`); None before the first."""
        return self._episodes.hard_starts.draw()

    # --- learner --------------------------------------------------------------------------------------------------

    def sample(self, n: int, batches: int = 1) -> list[dict[str, np.ndarray]]:
        """Batches of n transitions by eq. (9), each counted as one learner update."""
        drawn = [self.table.sample(n) for _ in range(batches)]
        self.updates += batches
        return drawn

    def pairs(self) -> dict[str, np.ndarray]:
        """See `ReplayTable.pairs`."""
        return self.table.pairs()

    def limits(self) -> dict[str, Any]:
        """Decisions and updates so far, updates due, and whether rollout may go on collecting."""
        decisions = self.decisions
        return {
            "decisions": decisions,
            "updates": self.updates,
            "updates_due": self.limiter.updates_due(decisions, self.updates),
            "may_collect": self.limiter.may_collect(decisions, self.updates),
        }

    def set_updates(self, updates: int) -> None:
        """Tells how many updates the learner that is resumed had made."""
        self.updates = int(updates)

    @property
    def decisions(self) -> int:
        """Decisions that the policy made and that were stored, over the whole life of the run."""
        return self.sources["rl"]

    # --- refinement -----------------------------------------------------------------------------------------------

    def push(self, pending: Sequence[PendingRefinement]) -> None:
        """Queues decisions to think over; their originals stay in the table until the answer is there."""
        if not pending:
            return
        self.log.append("refinement", [self._pending_record(item, "pending") for item in pending])
        for item in pending:
            self.table.pin(item.parent_id)
        for item in self.queue.push(pending):
            self._finish_record(self._pending_record(item, "dropped"), item)
        self._seal_if_due()

    def pop(self, worker: str) -> list[PendingRefinement]:
        """What the refiner `worker` shall think over next; [] when nothing waits.

        A refiner that asks again without having finished what it took was restarted: it gets that again first.
        """
        left = self._taken.get(worker) or self.queue.pop()
        self._taken[worker] = left
        if left:
            self._given[left[0].id] += 1
            if self._given[left[0].id] > TRIES:
                gone = f"{TRIES} refiners died over it"
                self.finish(worker, RefinementResult(left[0], "failed", error=gone))
                return self.pop(worker)
        return list(left)

    def finish(self, worker: str, result: RefinementResult) -> None:
        """Takes the outcome of one refinement: rows into table and shards, counts, proposal memory."""
        item = result.pending
        self._taken[worker] = [other for other in self._taken.get(worker, []) if other.id != item.id]
        self._given.pop(item.id, None)
        self.queue.discard(item.id)  # there again if this process was restarted while the refiner worked
        now = self._clock()
        rows = [dict(row, time=now) for row in result.transitions]
        accepted = self._store_refined(result, rows)
        common = {"reason": item.reason, "distance": item.distance, "parent_id": item.parent_id, "chain": item.chain}
        rounds = [
            {**common, **row, "id": item.id, "round": number, "status": "round", "worker": worker, "time": now}
            for number, row in enumerate(result.rounds, 1)
        ]
        self.log.append("refinement", rounds)
        for row in rounds:
            self.counters.add({"verdict": "", "error": "", **row})
        record = self._pending_record(item, result.status)
        last: Mapping[str, Any] = result.rounds[-1] if result.rounds else {}
        record |= {
            "salvageable": result.salvageable,
            "advantage": result.advantage,
            "rounds": len(result.rounds),
            "error": result.error,
            "worker": worker,
            **{name: last[name] for name in ("refiner", "model", "adapter_version", "verdict") if name in last},
        }
        if accepted is not None:
            record |= {"result_id": accepted["id"], "catalogue_id": accepted["catalogue_id"]}
            self.remember(int(accepted["catalogue_id"]))
        self._finish_record(record, item)
        self._ask_again(result)
        self._seal_if_due()

    def remember(self, catalogue_id: int) -> None:
        """Notes an id that a refiner confirmed better."""
        self._memory.pop(catalogue_id, None)
        self._memory[catalogue_id] = None
        while len(self._memory) > MEMORY_SIZE:
            self._memory.pop(next(iter(self._memory)))

    def memory(self) -> list[int]:
        """The proposal memory: confirmed catalogue ids, the latest last."""
        return list(self._memory)

    # --- critic ---------------------------------------------------------------------------------------------------

    def take_episode(self) -> list[dict[str, Any]]:
        """Transition records of a finished episode for the critic, in order of time; [] when none waits.

        One finished episode in `critic.every` is offered, once, as soon as D_LLM holds `critic.start` rows.
        """
        return self._episodes.take()

    @property
    def _critic_works(self) -> bool:
        start = self.settings.critic.start
        return self.table.refined >= start if start else self.table.refined_full

    def edit(self, episode: str, edits: Sequence[Mapping[str, Any]], **lost: int) -> int:
        """Applies the critic's edits of one episode; returns how many were in bounds and applied.

        Args:
            episode: whose transitions they are.
            edits: 'transition_id', 'delta', and optionally columns of the edit record.
            lost: entries of the reply that could not be used, or the reply itself, by why; counted.
        """
        self.criticised += 1
        self.critic_errors.update(lost)
        critic = self.settings.critic
        allowed = [critic.scale * factor for factor in (-2.0, -1.0, 1.0, 2.0)]
        taken: dict[int, dict[str, Any]] = {}
        for row in edits:
            in_set = any(abs(row["delta"] - level) < 1e-6 for level in allowed)
            if in_set and len(taken) < critic.edits and row["transition_id"] not in taken:
                taken[row["transition_id"]] = {**row, "episode": episode, "time": self._clock()}
        applied = [row for row in taken.values() if self.table.apply_edit(row["transition_id"], row["delta"])]
        self.log.append("edit", applied)
        self.edits += len(applied)
        self._seal_if_due()
        return len(applied)

    # --- all ------------------------------------------------------------------------------------------------------

    def stats(self) -> dict[str, Any]:
        """Numbers of table, limiter, queue, refinement and shards; plain and JSON-able."""
        stored = sum(shard.rows for shard in self.log.shards)
        return {
            **self.limits(),
            "table": self.table.stats(),
            "sources": dict(self.sources),
            "queue": self.queue.count(),
            "refinement": self.counters.to_json(),
            "edits": self.edits,
            "criticised": self.criticised,
            "critic_errors": dict(self.critic_errors),
            "memory": len(self._memory),
            "hard_starts": len(self._episodes.hard_starts),
            "shards": len(self.log.shards),
            "shard_rows": stored,
            "shard_mb": self.log.bytes / 1e6,
            "mb_per_1000_decisions": mb_per_1000(self.log.bytes, self._sealed_decisions()),
        }

    def report(self) -> list[str]:
        """What opening the folder found: torn or adopted shards, one sentence each."""
        return self.log.report.lines()

    def seal(self) -> int:
        """Makes durable all that is buffered; returns the number of shards written.

        Raises:
            RunFolderError: the disk is full; nothing is lost, and sealing again works once there is room.
        """
        sealed = len(self.log.seal(self._next_id))
        window = self.settings.replay.capacity
        if self._sealed_decisions() - self._compacted > 2 * window:
            self._compacted = self._sealed_decisions() - window
            compact(self.log, window)
        return sealed

    # --- inside ---------------------------------------------------------------------------------------------------

    def _restore(self) -> None:
        found = restore(self.log, self.table, self.settings, HARD_STARTS, self._domain)
        if self.log.continued:
            self._next_id = found.next_id + ID_GAP
            self.log.seal(self._next_id)  # the next opening skips these as well, should this one seal nothing
        self.sources.update(found.sources)
        self.edits = found.edits
        for record in found.refinements:
            self.counters.add(record)
            if record["status"] == "accepted" and record["catalogue_id"] >= 0:
                self.remember(record["catalogue_id"])
        for decisions in found.blackouts:
            self._episodes.hard_starts.lost(decisions)
        for item in found.pending:
            self.table.pin(item.parent_id)
        self.queue.push(found.pending)
        self._compacted = sum(self.log.dropped.values())

    def _sealed_decisions(self) -> int:
        rows = sum(shard.rows for shard in self.log.shards if shard.kind == "transition")
        return rows + sum(self.log.dropped.values())

    def _seal_if_due(self) -> None:
        if self.log.due():
            self.seal()

    def _record(self, states: States, rows: Sequence[dict[str, Any]]) -> None:
        self.log.append_states(states)
        self.log.append("transition", rows)
        self.sources.update(row.get("source", "rl") for row in rows)

    def _store_refined(self, result: RefinementResult, rows: list[dict[str, Any]]) -> dict[str, Any] | None:
        if not rows:
            return None
        states = States.concat(result.states)
        plain = [row for i, row in enumerate(rows) if i != result.refined]
        refined = rows[result.refined] if result.refined >= 0 else None
        if plain:  # first: the original of a seed is among them, and a refined row keeps its original
            self.table.append(states, records.table_columns(plain))
        if refined is not None:
            refined["refined"] = True
            self.table.add_refinement(states, records.table_columns([refined]))
            stored = self.table.get(refined["id"])
            if stored is not None:
                refined |= {"w_r": stored["weight"], "priority": stored["weight"] * stored["valid"]}
        self._record(states, rows)
        return refined if refined is not None and result.status == "accepted" else None

    def _pending_record(self, item: PendingRefinement, status: str) -> dict[str, Any]:
        return {
            "id": item.id,
            "round": 0,
            "status": status,
            "parent_id": item.parent_id,
            "snapshot": item.snapshot.to_json(),
            "played": item.played,
            "reason": item.reason,
            "distance": item.distance,
            "priority": item.priority,
            "chain": item.chain,
            "reward": item.reward,
            "time": self._clock(),
        }

    def _finish_record(self, record: dict[str, Any], item: PendingRefinement) -> None:
        record = {"rounds": 0, "salvageable": False, **record}
        self.log.append("refinement", [record])
        self.counters.add(record)
        self.table.unpin(item.parent_id)

    def _ask_again(self, result: RefinementResult) -> None:
        """A decision that nothing could save, but which an alternative would have served better, is asked about as a
        lowest-advantage one once no blackout waits (docs/design.md)."""
        item = result.pending
        if result.status != "unsalvageable" or item.reason not in ("lookback", "paper") or not result.advantage < 0.0:
            return
        again = PendingRefinement(
            id=self.reserve(1),
            parent_id=item.parent_id,
            snapshot=item.snapshot,
            played=item.played,
            reason="advantage",
            distance=item.distance,
            priority=-result.advantage,
            chain=item.chain,
            reward=item.reward,
        )
        self.push([again])


def mb_per_1000(size: int, decisions: int) -> float:
    """Megabytes of shards for 1,000 stored transitions; 0 before the first."""
    return size / 1e6 / decisions * 1000 if decisions else 0.0
