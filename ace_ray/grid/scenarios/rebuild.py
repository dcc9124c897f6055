"""From snapshots back to environments: one by replaying its scenario, many without replaying it for each of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ace_ray.config.errors import GridMismatchError
from ace_ray.domain import ActionLog, Snapshot
from ace_ray.grid.observation import GridObservation
from ace_ray.grid.physics.catalogue import Catalogue
from ace_ray.grid.scenarios.episode import playing
from ace_ray.grid.scenarios.scenario import Scenario, reset_to

GridSnapshot = Snapshot[Scenario]


def rebuild(env: Any, catalogue: Catalogue, snapshot: GridSnapshot) -> Any:
    """Resets `env` and replays the snapshot; returns the observation of its step.

    Raises:
        GridMismatchError: the episode ends before the step, so the log was made on another grid or data set.
    """
    return play_log(env, reset_to(env, snapshot.scenario), catalogue, snapshot, 0)


def play_log(env: Any, obs: GridObservation, catalogue: Catalogue, snapshot: GridSnapshot, start: int) -> Any:
    """Plays the log from step `start`, where `env` stands with `obs`, to the snapshot; returns the observation there.

    Raises:
        GridMismatchError: see `rebuild`.
    """
    played, nothing = dict(snapshot.log), env.action_space()
    for step in range(start, snapshot.step):
        ids = played.get(step)
        obs, _, done, info = env.step(catalogue.action(ids, obs) if ids else nothing)
        if done and step + 1 < snapshot.step:
            raise GridMismatchError(
                f"snapshot {snapshot.key()} ends at step {step + 1}, before its own step ({info['exception']})",
                "rebuild it with the environment, data set and version that it was made with",
            )
    return obs


@dataclass
class _Place:
    """An environment and where it stands."""

    env: Any
    obs: GridObservation
    snapshot: GridSnapshot

    def leads_to(self, snapshot: GridSnapshot) -> bool:
        """True when playing on along the log of `snapshot` ends there."""
        here = self.snapshot
        return (
            here.step <= snapshot.step
            and here.scenario == snapshot.scenario
            and _before(here.log, here.step) == _before(snapshot.log, here.step)
        )


def _before(log: ActionLog, step: int) -> ActionLog:
    return tuple(entry for entry in log if entry[0] < step)


class Rebuilder:
    """Brings an environment to the state of a snapshot and hands out copies of it.

    Copies that were made stay (the `keep` last used ones, about 2 MB each), and a snapshot is reached from the nearest
    state on its way that is still there: another kept copy, or the environment itself. `hold` uses this to reach
    all decisions before a blackout on one replay; asking for them one by one, the last first, would replay the
    scenario once for each.

    Args:
        env: an environment of its own, which is reset and stepped here; nobody else may touch it.
        catalogue: turns the log's ids into actions.
        keep: number of copies kept.
    """

    def __init__(self, env: Any, catalogue: Catalogue, keep: int = 12) -> None:
        self.env = env
        self.catalogue = catalogue
        self.keep = keep
        self.replayed = 0  # environment steps spent on rebuilding so far
        self._held = 0  # snapshots of the last `hold`; their copies stay even where they are more than `keep`
        self._kept: OrderedDict[str, _Place] = OrderedDict()
        self._main: _Place | None = None

    def hold(self, snapshots: Iterable[GridSnapshot]) -> None:
        """Keeps a copy of the environment at each snapshot; those on one log cost one replay together."""
        wanted = sorted(snapshots, key=lambda s: (s.scenario, s.step))
        self._held = len(wanted)
        for snapshot in wanted:
            self._place(snapshot)

    def copy(self, snapshot: GridSnapshot) -> tuple[Any, Any]:
        """A fresh copy of the environment at the snapshot, with its observation; the caller may step it.

        Raises:
            GridMismatchError: the log ends the episode before the snapshot's step.
        """
        copied = self._place(snapshot).env.copy()
        return copied, copied.get_obs()

    def observation(self, snapshot: GridSnapshot) -> Any:
        """The observation at the snapshot; `simulate` works on it."""
        return self._place(snapshot).obs

    def _place(self, snapshot: GridSnapshot) -> _Place:
        key = snapshot.key()
        if key not in self._kept:
            with playing(snapshot.scenario.chronic):
                self._kept[key] = self._reach(snapshot)
            while len(self._kept) > max(self.keep, self._held):
                self._kept.popitem(last=False)[1].env.close()
        self._kept.move_to_end(key)
        return self._kept[key]

    def _reach(self, snapshot: GridSnapshot) -> _Place:
        leading = [place for place in self._kept.values() if place.leads_to(snapshot)]
        kept = max(leading, key=lambda place: place.snapshot.step, default=None)
        main = self._main if self._main is not None and self._main.leads_to(snapshot) else None
        if main is None and kept is None:
            obs = reset_to(self.env, snapshot.scenario)
            main = _Place(self.env, obs, Snapshot(snapshot.scenario, (), 0))
        if kept is not None and (main is None or kept.snapshot.step > main.snapshot.step):
            copied = kept.env.copy()
            place = self._advance(_Place(copied, copied.get_obs(), kept.snapshot), snapshot)
        else:
            assert main is not None
            self._main = None  # it stands nowhere if the log does not lead where it says
            self._main = self._advance(main, snapshot)
            copied = self.env.copy()
            place = _Place(copied, copied.get_obs(), snapshot)
        return place

    def _advance(self, place: _Place, snapshot: GridSnapshot) -> _Place:
        """Plays the log from `place` to the snapshot; the environment of `place` is stepped."""
        obs = play_log(place.env, place.obs, self.catalogue, snapshot, place.snapshot.step)
        self.replayed += snapshot.step - place.snapshot.step
        return _Place(place.env, obs, snapshot)
