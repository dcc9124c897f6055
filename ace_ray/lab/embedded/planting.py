"""Planted decisions: an episode as it was played up to a decision, another action there, and what came of it.

The outcomes of the compared set say which actions die within the horizon while another survives. Of such an action it
is known that it was a bad decision; where it leads to a blackout, the critic ought to find it (`critic_exam`), and
learns to from such episodes (`embedded_train`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ace_ray.agents.greedy import greedy_slot
from ace_ray.config.refine import CriticSettings
from ace_ray.domain import Snapshot
from ace_ray.grid.engine import Decision
from ace_ray.lab.embedded.critic_examples import LabelledEpisode
from ace_ray.lab.embedded.labels import Labeller, Visit, episode_steps
from ace_ray.lab.exam.exam import ExamState
from ace_ray.language.critic import KeyStep, key_steps

_ASTRAY_AMONG = 4  # slots after the best one
_MOST_DEADLY = 4


@dataclass(frozen=True)
class Planted:
    """An episode with a planted decision; `at` is its number among the visits."""

    visits: Sequence[Visit]
    at: int
    blackout: bool
    steps: int

    def keys(self, settings: CriticSettings) -> list[KeyStep]:
        """What the critic is shown; the id of a step is its number among the visits."""
        return key_steps(episode_steps(self.visits, self.blackout), settings)

    def labelled(self, settings: CriticSettings) -> LabelledEpisode | None:
        """The episode with the edit that is right: the planted decision lowered by 2K if the grid went black, raised by
        K if it lived on where others die; None if the planted decision is not among the key steps."""
        keys = self.keys(settings)
        number = next((i for i, key in enumerate(keys) if key.step.id == self.at), None)
        if number is None:
            return None
        edit = (number, -2.0 if self.blackout else 1.0)
        return LabelledEpisode(tuple(keys), not self.blackout, self.steps, len(self.visits), self.total, (edit,))

    @property
    def total(self) -> float:
        """Sum of the rewards."""
        return round(sum(visit.reward for visit in self.visits), 2)


def plant(
    labeller: Labeller, snapshot: Snapshot, id: int, astray: float = 0.0, rng: np.random.Generator | None = None
) -> Planted | None:
    """The episode of a snapshot with `id` played there.

    Args:
        labeller: plays it.
        astray: chance that the controller, greedy otherwise, plays one of the next four slots at a later decision: then
            the planted decision is not the last one that was not the best by prediction.
        rng: needed if `astray` is above 0.

    Returns:
        None if the snapshot is not reached: it was made with another decision engine.
    """
    log, there, engine = dict(snapshot.log), snapshot.step, labeller.engine

    def choose(decision: Decision, step: int) -> Sequence[int]:
        if step < there:
            return log.get(step) or (0,)
        if step == there:
            slots = np.flatnonzero((decision.ids == id) & decision.mask)
            return engine.ids_for(decision, int(slots[0])) if slots.size else (id,)
        slot = greedy_slot(decision)
        if rng is not None and rng.random() < astray:
            legal = np.flatnonzero(decision.mask)
            others = legal[np.argsort(-decision.score[legal], kind="stable")][1 : 1 + _ASTRAY_AMONG]
            slot = int(rng.choice(others)) if others.size else slot
        return engine.ids_for(decision, slot)

    visits, blackout, steps = labeller.follow(snapshot.scenario, choose)
    at = next((i for i, visit in enumerate(visits) if visit.snapshot == snapshot), None)
    return None if at is None else Planted(visits, at, blackout, steps)


def plantable(state: ExamState, rng: np.random.Generator) -> list[int]:
    """Ids to plant for training, where some of the compared set die and some survive: up to four that die, one that
    survives; else none."""
    dead = [id for id, outcome in state.outcomes.items() if not outcome.survived]
    alive = [id for id, outcome in state.outcomes.items() if outcome.survived]
    if not dead or not alive:
        return []
    return [*rng.permutation(dead)[:_MOST_DEADLY].tolist(), int(rng.choice(alive))]


def training_episodes(
    labeller: Labeller, states: Sequence[ExamState], settings: CriticSettings, astray: Sequence[float], seed: int
) -> Iterator[LabelledEpisode]:
    """Episodes for the critic's training: of every state that `plantable` takes, `astray` drawn from the values."""
    rng = np.random.default_rng(seed)
    for state in states:
        for id in plantable(state, rng):
            planted = plant(labeller, state.snapshot, id, float(rng.choice(astray)), rng)
            as_it_should = planted is not None and planted.blackout != state.outcomes[id].survived
            episode = planted.labelled(settings) if planted is not None and as_it_should else None
            if episode is not None:
                yield episode
