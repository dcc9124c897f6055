"""Small rows for the replay's tests: states that say their own id in their features."""

import numpy as np

from ace_ray.config.learning import MixingSettings, ReplaySettings
from ace_ray.config.refine import CriticSettings, RefineSettings
from ace_ray.config.run import RunSettings
from ace_ray.domain import Snapshot
from ace_ray.grid.scenarios.scenario import Scenario
from ace_ray.replay.pending import PendingRefinement
from ace_ray.replay.shards import LogIdentity
from ace_ray.schema import States, StateShape

SHAPE = StateShape(slots=4, slot_features=3, context_features=2)
IDENTITY = LogIdentity("grid", "hash", SHAPE)
SCENARIO = Scenario("grid", "data", "chronic", 7)


def states(ids):
    """States whose every feature is the state's id."""
    ids = np.asarray(ids, np.int64)
    n, k, f, c = len(ids), SHAPE.slots, SHAPE.slot_features, SHAPE.context_features
    return States(
        id=ids,
        context=np.broadcast_to(ids[:, None], (n, c)).astype(np.float32),
        slots=np.broadcast_to(ids[:, None, None], (n, k, f)).astype(np.float32),
        mask=np.ones((n, k), bool),
        score=np.broadcast_to(-ids[:, None], (n, k)).astype(np.float32),
        ids=np.arange(k, dtype=np.int32)[None].repeat(n, 0),
    )


def chain(first, n, ends=True, episode="e", lead="[]", **columns):
    """n transitions of one episode, ids first..; each one's next state is the next one's state."""
    found = []
    for i in range(n):
        last = i == n - 1
        row = {
            "id": first + i,
            "state_id": first + i,
            "next_id": -1 if last and ends else first + i + 1,
            "slot": i % SHAPE.slots,
            "catalogue_id": 10 + i,
            "reward": float(first + i),
            "discount": 0.9,
            "terminated": last and ends,
            "episode": episode,
            "scenario": SCENARIO.to_json(),
            "step": 5 * i + 2,
            "steps": 5,
            "segment": f"[[{5 * i + 2}, [{10 + i}]]]",
            "lead": lead if i == 0 else "",
            **columns,
        }
        found.append(row)
    return found


def chain_states(first, n, ends=True):
    """The states that `chain` refers to."""
    return states(range(first, first + n + (not ends)))


def pending(id, distance=0, reason="lookback", parent=-1, priority=1.0, chain="c", step=10):
    snapshot = Snapshot(SCENARIO, ((1, (3,)), (4, (5, 6))), step)
    return PendingRefinement(id, parent, snapshot, 11, reason, distance, priority, chain, 0.5)


def settings(**replay):
    """A run's settings with small replay sizes."""
    sizes = {"capacity": 64, "refined_capacity": 16, "warmup": 4, "shard_rows": 10_000, "shard_seconds": 1e9}
    return RunSettings(
        replay=ReplaySettings(**(sizes | replay)),
        mixing=MixingSettings(),
        refine=RefineSettings(queue=16, refiner="search"),
        critic=CriticSettings(every=1),
    )
