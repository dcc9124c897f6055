"""Live replays for the gate: what a reply proposes outside the cached set is played and followed like the rest."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ace_ray.agents.comparator import Comparator
from ace_ray.config.run import RunSettings
from ace_ray.finetune.embedded_eval import deployed_case
from ace_ray.finetune.gate import GateCase, Judge
from ace_ray.grid.engine import DecisionEngine
from ace_ray.grid.environment import make_env
from ace_ray.grid.snapshot import Snapshot
from ace_ray.language.actor import outcome
from ace_ray.language.reply import resolve
from ace_ray.language.view import Outcome


@contextlib.contextmanager
def live_judge(settings: RunSettings) -> Iterator[Judge]:
    """A judge whose environment is made when the first reply needs it (some seconds, about 400 MB)."""
    made: list[Comparator] = []

    def comparator() -> Comparator:
        if not made:
            env = make_env(settings.grid)
            made.append(Comparator(env, DecisionEngine(env, settings.grid), settings.grid))
        return made[0]

    def judge(case: GateCase, reply: str) -> Outcome | None:
        compare = comparator()
        snapshot = Snapshot.from_json(case.snapshot)
        catalogue = compare.engine.catalogue
        legal = catalogue.legal(compare.observation(snapshot))
        action = resolve(reply, deployed_case(case.labelled), catalogue, legal).playable
        if action is None:
            return None
        return outcome(compare.fate(snapshot, action))

    try:
        yield judge
    finally:
        for compare in made:
            compare.rebuilder.env.close()
