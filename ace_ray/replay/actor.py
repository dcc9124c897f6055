"""The replay's Ray actor: a thin shell around `ReplayCore`, and the calls that the other processes make on it.

Start it (the folder is resumed if it holds shards; an actor that dies is restarted by Ray and resumes the same way):

    identity = LogIdentity(env_name, catalogue.hash, StateShape(K, F, C))
    replay = start_replay(run_dir / "replay", settings, identity, domain)

Who calls what (each is `replay.<name>.remote(...)`):

    algorithm   limits() -> {'decisions', 'updates', 'updates_due', 'may_collect'}
                sample(n, batches=1) -> [batch, ...]   a dict of NumPy columns each (ReplayTable.sample); each batch
                                                       counts as one update, so: k = limits()['updates_due'], then
                                                       sample(settings.learner.batch, k) and update with each
                set_updates(n)                         the learner's own count of updates: after loading a checkpoint,
                                                       and when limits() shows fewer (this process was restarted)
                pairs() -> columns                     refined and played slot of each refined state (ReplayTable)
                memory() -> [catalogue id, ...]        the proposal memory, for checkpoint and export
                stats() -> dict                        everything to print or plot, JSON-able
                report() -> [sentence, ...]            torn or adopted shards found when the folder was opened
                seal() -> shards written               before a checkpoint, at the end, on SIGTERM
                push([PendingRefinement, ...])         seeds the queue (reason 'seed'; ids from reserve)
    rollout     reserve(n) -> first id; store(states, transitions, pending) -> limits(); hard_start() -> Snapshot | None
    refiner     pop(worker) -> [PendingRefinement, ...]; finish(worker, RefinementResult); reserve(n); memory();
                take_episode() -> transition records; edit(episode, edits) -> applied

`stats()` has the limits, and: 'table' (sizes, w_r mean, its clipped share, valid share), 'sources' (stored transitions
by source), 'queue' (waiting by reason), 'refinement' (asked, salvageable, accepted, rejected, ... rounds, errors,
by_reason, by_distance, accepted_by_round), 'edits', 'memory', 'hard_starts', 'shards', 'shard_mb',
'mb_per_1000_decisions'.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray

from ace_ray.config import files
from ace_ray.config.run import RunSettings
from ace_ray.domain import Domain
from ace_ray.replay.core import ReplayCore
from ace_ray.replay.shards import LogIdentity

LOCK = "lock"


class SingleWriter(ReplayCore):
    """`ReplayCore` in a process of its own, alone on its folder.

    A driver that is killed leaves its replay actor alive for some seconds; a resume waits for it here, or two writers
    would number their shards alike.
    """

    def __init__(self, folder: Path, settings: RunSettings, identity: LogIdentity, domain: Domain) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._writer = files.lock(folder / LOCK)
        super().__init__(folder, settings, identity, domain)


ReplayActor = ray.remote(SingleWriter)


def start_replay(
    folder: Path, settings: RunSettings, identity: LogIdentity, domain: Domain, name: str | None = None
) -> ray.actor.ActorHandle[Any]:
    """Starts the replay actor of a run.

    Args:
        folder: `<run>/replay`, visible from the node that the actor runs on.
        settings: of the run; `resources.replay_cpu` is its share.
        identity: environment, catalogue hash, sizes of the states.
        domain: reads scenarios and snapshots.
        name: of the actor, so that other processes find it; None leaves it unnamed.
    """
    options: dict[str, Any] = {"num_cpus": settings.resources.replay_cpu, "max_restarts": -1, "max_task_retries": 0}
    if name:
        options["name"] = name
    folder.mkdir(parents=True, exist_ok=True)
    files.lock(folder / LOCK).close()  # waits here, where the log is read, for the writer of a start that was killed
    return ReplayActor.options(**options).remote(folder, settings, identity, domain)
