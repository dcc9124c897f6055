"""From the transition records of an episode back to snapshots of its decisions: what `lead` and `segment` are for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ace_ray.grid.scenarios.scenario import Scenario
from ace_ray.grid.scenarios.snapshot import ActionLog, Snapshot

COLUMNS = ("episode", "scenario", "step", "steps", "lead", "segment", "terminated", "source")


def log_to_json(log: ActionLog) -> str:
    """An action log as the records keep it: `[[step, [catalogue ids]], ...]`."""
    return json.dumps([[int(step), [int(i) for i in ids]] for step, ids in log], separators=(",", ":"))


def log_from_json(text: str) -> ActionLog:
    """The inverse of `log_to_json`."""
    return tuple((int(step), tuple(int(i) for i in ids)) for step, ids in json.loads(text))


def snapshots_of(rows: Sequence[Mapping[str, Any]], last: int) -> list[Snapshot]:
    """Snapshots of the last decisions of one episode, the latest first.

    Args:
        rows: transition records of the policy in one episode, in order.
        last: number of decisions at most.

    Returns:
        [] when records are missing in between or at the start: then nothing could be rebuilt.
    """
    if not rows or not rows[0].get("lead"):
        return []
    scenario = Scenario.from_json(rows[0]["scenario"])
    log = list(log_from_json(rows[0]["lead"]))
    found = []
    for i, row in enumerate(rows):
        if i and rows[i - 1]["step"] + rows[i - 1]["steps"] != row["step"]:
            return []
        if i >= len(rows) - last:
            found.append(Snapshot(scenario, tuple(log), int(row["step"])))
        log.extend(log_from_json(row["segment"]))
    return found[::-1]


def blackouts(rows: Sequence[Mapping[str, Any]], limit: int, last: int) -> list[list[Snapshot]]:
    """For each of the latest `limit` episodes that ended in a blackout, what `snapshots_of` gives; oldest first."""
    open_episodes: dict[str, list[Mapping[str, Any]]] = {}
    ended = []
    for row in rows:
        if row["source"] != "rl":
            continue
        open_episodes.setdefault(row["episode"], []).append(row)
        if row["terminated"]:
            ended.append(open_episodes.pop(row["episode"]))
    found = [snapshots_of(episode, last) for episode in ended[-limit:]]
    return [snapshots for snapshots in found if snapshots]
