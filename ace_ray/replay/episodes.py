"""Episodes as their transition records come in, and the snapshots of their decisions.

`lead` and `segment` of the records hold what was played. From them come the decisions before a blackout, which episodes
may start from, and whole episodes for the critic.
"""

from __future__ import annotations

import json
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ace_ray.domain import ActionLog, Domain, Snapshot

HARD_STARTS = 256  # scenarios remembered that ended in a blackout
RESTARTS = 3  # lost in a row, after which a scenario is given up: not to be saved, or not yet
CRITIC_WAITING = 8  # episodes; the critic is slow, and older ones say little about the present policy
OPEN_EPISODES = 256

COLUMNS = ("episode", "scenario", "step", "steps", "lead", "segment", "terminated", "source")


def log_to_json(log: ActionLog) -> str:
    """An action log as the records keep it: `[[step, [catalogue ids]], ...]`."""
    return json.dumps([[int(step), [int(i) for i in ids]] for step, ids in log], separators=(",", ":"))


def log_from_json(text: str) -> ActionLog:
    """The inverse of `log_to_json`."""
    return tuple((int(step), tuple(int(i) for i in ids)) for step, ids in json.loads(text))


def snapshots_of(rows: Sequence[Mapping[str, Any]], last: int, domain: Domain) -> list[Snapshot]:
    """Snapshots of the last decisions of one episode, the latest first.

    Args:
        rows: transition records of the policy in one episode, in order.
        last: number of decisions at most.
        domain: reads the scenario.

    Returns:
        [] when records are missing in between or at the start: then nothing could be rebuilt.
    """
    if not rows or not rows[0].get("lead"):
        return []
    scenario = domain.scenario(**json.loads(rows[0]["scenario"]))
    log = list(log_from_json(rows[0]["lead"]))
    found = []
    for i, row in enumerate(rows):
        if i and rows[i - 1]["step"] + rows[i - 1]["steps"] != row["step"]:
            return []
        if i >= len(rows) - last:
            found.append(Snapshot(scenario, tuple(log), int(row["step"])))
        log.extend(log_from_json(row["segment"]))
    return found[::-1]


def blackouts(rows: Sequence[Mapping[str, Any]], limit: int, last: int, domain: Domain) -> list[list[Snapshot]]:
    """For each of the latest `limit` episodes that ended in a blackout, what `snapshots_of` gives; oldest first."""
    open_episodes: dict[str, list[Mapping[str, Any]]] = {}
    ended = []
    for row in rows:
        if row["source"] != "rl":
            continue
        open_episodes.setdefault(row["episode"], []).append(row)
        if row["terminated"]:
            ended.append(open_episodes.pop(row["episode"]))
    found = [snapshots_of(episode, last, domain) for episode in ended[-limit:]]
    return [snapshots for snapshots in found if snapshots]


@dataclass
class Lost:
    """A scenario that the policy lost.

    Attributes:
        decisions: the last ones before its first blackout, the latest first.
        again: blackouts in a row since then, of episodes that started from one of these decisions.
    """

    decisions: list[Snapshot]
    again: int = 0


class HardStarts:
    """Decisions before a blackout, from which episodes start again.

    One entry a scenario, however often it is lost: a scenario that nobody can save would otherwise win a further entry
    with each restart, until most restarts were its own. It leaves after `RESTARTS` restarts in a row that were lost.

    Args:
        seed: of the draws.
    """

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self._lost: OrderedDict[str, Lost] = OrderedDict()  # by scenario, the latest last
        self._hopeless: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._lost)

    def lost(self, decisions: list[Snapshot]) -> None:
        """An episode ended in a blackout; `decisions` are its last ones."""
        key = decisions[0].scenario.key()
        if key in self._hopeless:
            return
        if key not in self._lost:
            self._lost[key] = Lost(decisions)
            if len(self._lost) > HARD_STARTS:
                self._lost.popitem(last=False)
            return
        self._lost[key].again += 1
        if self._lost[key].again >= RESTARTS:
            del self._lost[key]
            self._hopeless[key] = None
            while len(self._hopeless) > 4 * HARD_STARTS:
                self._hopeless.popitem(last=False)

    def survived(self, scenario: str) -> None:
        """An episode of this scenario (its key) came to its end."""
        if scenario in self._lost:
            self._lost[scenario].again = 0

    def draw(self) -> Snapshot | None:
        """One of the decisions, drawn evenly over scenarios; None where there is none."""
        if not self._lost:
            return None
        chosen = list(self._lost.values())[int(self._rng.integers(len(self._lost)))].decisions
        return chosen[int(self._rng.integers(len(chosen)))]


class FollowedEpisodes:
    """Puts the transition records of the policy together to episodes. Nothing here is durable; the hard starts are
    filled again on resume.

    Args:
        lookback: decisions before a blackout that a hard start is drawn from.
        every: one finished episode in this many is kept for the critic; 0 for none.
        seed: of the draws.
        domain: reads the scenarios of the records.
    """

    def __init__(self, lookback: int, every: int, seed: int, domain: Domain) -> None:
        self.hard_starts = HardStarts(seed)
        self._lookback = lookback
        self._every = every
        self._domain = domain
        self._open: dict[str, list[dict[str, Any]]] = {}
        self._waiting: deque[list[dict[str, Any]]] = deque(maxlen=CRITIC_WAITING)
        self._finished = 0

    def follow(self, row: dict[str, Any], critic_works: bool) -> None:
        """Takes the next transition record of an episode.

        Args:
            row: of any source; only the policy's count.
            critic_works: whether an episode that ends now is wanted by the critic.
        """
        if row.get("source", "rl") != "rl":
            return
        episode = self._open.setdefault(row["episode"], [])
        episode.append(row)
        while len(self._open) > OPEN_EPISODES:  # of workers that died: their episodes never end
            self._open.pop(next(iter(self._open)))
        if not (row.get("terminated") or row.get("truncated")):
            return
        self._open.pop(row["episode"], None)
        self._finished += 1
        if row.get("terminated"):
            if decisions := snapshots_of(episode, self._lookback, self._domain):
                self.hard_starts.lost(decisions)
        else:
            self.hard_starts.survived(self._domain.scenario(**json.loads(row["scenario"])).key())
        if critic_works and self._every and self._finished % self._every == 0:
            self._waiting.append(episode)

    def take(self) -> list[dict[str, Any]]:
        """The records of the episode that has waited longest for the critic, in order of time; [] when none waits."""
        return self._waiting.popleft() if self._waiting else []
