"""Labels: decisions of real scenarios and the outcome of each action, found by replay.

Greedy plays training scenarios, with random slots mixed in so that bad decisions occur. Of each episode some
decisions are labelled: of those before a blackout up to `before_blackout`, looking back at most `lookback` decisions,
and `random` critical ones at random, at most one per 25 steps. Every action of the compared set is replayed
over the horizon. Further decisions are kept without outcomes (bootstrap labels, where the least danger decides): they
cost little.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from ace_ray.agents.greedy import greedy_slot
from ace_ray.config.grid import GridSettings
from ace_ray.config.refine import CriticSettings, LanguageSettings
from ace_ray.domain import Outcome, Snapshot, best, pivotal, salvageable
from ace_ray.finetune.held_out import outcome_columns, outcomes_of
from ace_ray.grid.decision_env import DecisionEnv
from ace_ray.grid.engine import Decision
from ace_ray.grid.fingerprint import behaviour
from ace_ray.grid.scenarios.environment import make_env
from ace_ray.grid.scenarios.scenario import Scenario
from ace_ray.grid.scenarios.scenario_sets import parse, training_scenarios
from ace_ray.language.critic import EpisodeStep, critic_system
from ace_ray.language.describe import action_text, when_text
from ace_ray.refine.builder import Workbench

_SPACING = 25
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class LabelPlan:
    """What is labelled.

    Attributes:
        grid: Environment, data, comparison.
        seed: Base of all draws; episode i of a split depends on (seed, split, i) alone.
        nearest, lookback: Decisions before a blackout that may be labelled, by distance (0: the last one; the very last
            ones can hardly ever be saved).
        before_blackout: Of these at most so many an episode.
        random: Random critical decisions labelled an episode.
        bootstrap: Further decisions kept without outcomes an episode.
        perturbation: Chance of a random slot at a decision, drawn per episode from these.
        max_steps: Cap of an episode's length, so that starts vary more.
        spaced: The spacing holds for the decisions before a blackout too, as in an evaluation.
    """

    grid: GridSettings = field(default_factory=GridSettings)
    seed: int = 0
    nearest: int = 2
    lookback: int = 10
    before_blackout: int = 3
    random: int = 1
    bootstrap: int = 6
    perturbation: tuple[float, ...] = (0.0, 0.05, 0.2, 0.5)
    max_steps: int = 600
    spaced: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain types; without the settings of the expert, which has no part in labels."""
        return {**asdict(self), "grid": self.grid.model_dump(mode="json", exclude={"expert"})}

    @classmethod
    def from_json(cls, plan: dict[str, Any], grid: GridSettings | None = None) -> LabelPlan:
        """The plan that `to_json` wrote down; with `grid` in place of its own settings where given."""
        settings = GridSettings(**plan["grid"]) if grid is None else grid
        return cls(**{**plan, "grid": settings, "perturbation": tuple(plan["perturbation"])})

    @classmethod
    def for_decision_files(cls, grid: GridSettings) -> LabelPlan:
        """The plan that fills gate and seed files in the least time.

        Pivotal and salvageable decisions lie before blackouts, so only those are labelled, of episodes that are played
        badly enough to end in one soon: of ten validation episodes two did with a tenth of random slots, six with
        eight tenths. An episode without a blackout costs a tenth of a labelled one, so mild disturbance stays too.
        """
        return cls(grid, before_blackout=5, random=0, bootstrap=0, perturbation=(0.2, 0.5, 0.8), max_steps=400)


@dataclass(frozen=True)
class Choice:
    """A decision and the action that was played there."""

    snapshot: Snapshot
    decision: Decision
    played: int


@dataclass(frozen=True)
class Visit(Choice):
    """A decision that was passed while playing."""

    text: str
    when: str
    reward: float
    rho: float
    overloads: int
    rank: int
    behind: float


class Labeller:
    """Plays and labels episodes; one a process."""

    def __init__(self, plan: LabelPlan) -> None:
        self.plan = plan
        settings = plan.grid
        bench = Workbench(settings, LanguageSettings(danger=True))
        self.engine, self.comparator, self.actor = bench.engine, bench.comparator, bench.actor
        self.play = DecisionEnv(make_env(settings), self.engine, settings)

    def meta(self) -> dict[str, Any]:
        """What the label folder's meta.json says."""
        return {
            "plan": self.plan.to_json(),
            "facts": asdict(self.actor.facts),
            "catalogue": self.engine.catalogue.hash,
            "context": self.comparator.context(),
            "behaviour": behaviour(self.plan.grid),
            "critic_system": critic_system(CriticSettings()),
        }

    def scenario(self, split: str, index: int) -> Scenario:
        """Episode `index` of a split."""
        if split == "train":
            chosen = next(training_scenarios(self.plan.grid, _seed(self.plan, split, index)))
        else:
            chosen = parse(f"{split}:{index + 1}", self.plan.grid).scenarios[index]
        length = self.plan.max_steps if chosen.max_steps is None else min(self.plan.max_steps, chosen.max_steps)
        return replace(chosen, max_steps=length)

    def episode(self, split: str, index: int) -> list[dict[str, Any]]:
        """Label rows of one episode."""
        rng = np.random.default_rng(_seed(self.plan, split, index))
        visits, blackout, _ = self._play(self.scenario(split, index), rng)
        chosen = self._choose(visits, blackout, rng)
        rows = []
        self.comparator.hold([visits[i].snapshot for i in chosen])
        for i in chosen:
            rows.append(self._compared(split, visits[i], len(visits) - 1 - i if blackout else -1))
        others = [i for i in range(len(visits)) if i not in chosen]
        for i in sorted(rng.permutation(others)[: self.plan.bootstrap].tolist()) if others else []:
            rows.append(self._row(split, visits[i], {}, len(visits) - 1 - i if blackout else -1, 0.0))
        return rows

    def replayed(self, row: dict[str, Any]) -> dict[str, Any]:
        """A label row as the present engine labels its decision; the distance stays, as the episode is not played."""
        snapshot, played = Snapshot.from_json(row["snapshot"], Scenario), _played(row)
        # The played action had a slot when it was played: the prompt shows its predicted effect.
        missing = [] if played in self.comparator.decision(snapshot).ids else [played]
        decision = self.engine.decide(self.comparator.observation(snapshot), proposals=missing)
        return self._compared(row["split"], Choice(snapshot, decision, played), row["distance"])

    def described(self, row: dict[str, Any]) -> dict[str, Any]:
        """A label row with its case and prompt as they are written now; what the replays showed stays."""
        snapshot = Snapshot.from_json(row["snapshot"], Scenario)
        obs, played = self.comparator.observation(snapshot), _played(row)
        decision = self.engine.decide(obs, proposals=[played])
        return {**row, **self._texts(obs, decision, played, outcomes_of(row).get(played))}

    def _play(self, scenario: Scenario, rng: np.random.Generator) -> tuple[list[Visit], bool, int]:
        """Greedy with random slots; returns the decisions, whether the grid went black, and the steps played."""
        perturbation = float(rng.choice(self.plan.perturbation))

        def choose(decision: Decision, step: int) -> tuple[int, ...]:
            random = rng.random() < perturbation
            return self.engine.ids_for(decision, _random_slot(decision, rng) if random else greedy_slot(decision))

        return self.follow(scenario, choose)

    def follow(
        self, scenario: Scenario, choose: Callable[[Decision, int], Sequence[int]]
    ) -> tuple[list[Visit], bool, int]:
        """Plays what `choose` says of each decision and its step; the result as of `_play`."""
        visits: list[Visit] = []
        _, info = self.play.reset(options={"scenario": scenario})
        terminated = truncated = info["decision"] is None
        blackout = terminated and info["survival"] < 1
        while not (terminated or truncated):
            decision, obs, snapshot = info["decision"], self.play.grid_observation, self.play.snapshot()
            ids = choose(decision, snapshot.step)
            text, when = action_text(self.engine.catalogue, ids[0], obs), when_text(obs)
            rho, overloads = float(obs.rho.max()), int((obs.rho > 1).sum())
            _, reward, terminated, truncated, info = self.play.play(ids)
            slots = np.flatnonzero(decision.ids == ids[0])
            rank, behind = decision.standing(int(slots[0])) if slots.size else (0, 0.0)
            visits.append(Visit(snapshot, decision, int(ids[0]), text, when, reward, rho, overloads, rank, behind))
            blackout = terminated
        return visits, blackout, int(info["step"])

    def _choose(self, visits: Sequence[Visit], blackout: bool, rng: np.random.Generator) -> list[int]:
        """Indices of the decisions to label."""
        chosen: list[int] = []

        def take(order: Sequence[int], most: int, spaced: bool) -> None:
            for i in order:
                if len(chosen) >= most:
                    return
                if not spaced or all(
                    abs(visits[i].snapshot.step - visits[j].snapshot.step) >= _SPACING for j in chosen
                ):
                    chosen.append(i)

        if blackout:
            last = range(max(0, len(visits) - self.plan.lookback), len(visits) - self.plan.nearest)
            take(rng.permutation(list(last)).tolist(), self.plan.before_blackout, self.plan.spaced)
        take(rng.permutation(len(visits)).tolist(), len(chosen) + self.plan.random, True)
        return sorted(chosen)

    def _compared(self, split: str, choice: Choice, distance: int) -> dict[str, Any]:
        """The row of a decision with the outcomes of its compared set."""
        begun = time.perf_counter()
        compared = self.comparator.compared_set(choice.decision, choice.played)
        outcomes = self.comparator.outcomes(choice.snapshot, compared)
        return self._row(split, choice, outcomes, distance, time.perf_counter() - begun)

    def _row(
        self, split: str, choice: Choice, outcomes: dict[int, Outcome], distance: int, seconds: float
    ) -> dict[str, Any]:
        obs = self.comparator.observation(choice.snapshot)
        played = outcomes.get(choice.played)
        span = max((abs(f.span) for f in outcomes.values()), default=0.0)
        return {
            "key": choice.snapshot.key(),
            "split": split,
            "kind": choice.decision.kind,
            "distance": distance,
            "snapshot": choice.snapshot.to_json(),
            **outcome_columns(outcomes),
            "tie": max(1e-6, self.plan.grid.compare.tie * span),
            "best": best(outcomes) if outcomes else int(choice.decision.ids[int(np.argmax(choice.decision.score))]),
            "salvageable": bool(outcomes) and salvageable(outcomes, choice.played),
            "pivotal": bool(outcomes) and pivotal(_without_played(outcomes, choice)),
            "seconds": round(seconds, 3),
            **self._texts(obs, choice.decision, choice.played, played),
        }

    def _texts(self, obs: Any, decision: Decision, played: int, outcome: Outcome | None) -> dict[str, Any]:
        """What a row says in the words of the prompts: the case, the played action, and the whole prompt."""
        case = self.actor.case(obs, decision, played, outcome)
        if case.bad is None:
            raise ValueError("a case with a played action has a bad example")
        return {
            "case": _without_bad(case.to_json()),
            "played": json.dumps(asdict(case.bad.action)),
            "prompt": json.dumps(self.actor.messages(case, obs, decision)),
        }


def episode_steps(visits: Sequence[Visit], blackout: bool) -> list[EpisodeStep]:
    """An episode as the critic reads it; the id of a step is its number."""
    steps = []
    for i, v in enumerate(visits):
        following = visits[i + 1].rho if i + 1 < len(visits) else (math.nan if blackout else v.rho)
        told = (v.when, v.text, round(v.reward, 4), v.rho, following, v.overloads, v.rank, v.behind)
        steps.append(EpisodeStep(i, v.snapshot.step, *told))
    return steps


def _without_bad(case: str) -> str:
    return json.dumps({**json.loads(case), "bad": None}, separators=(",", ":"))


def _played(row: dict[str, Any]) -> int:
    return int(json.loads(row["played"])["id"])


def _without_played(outcomes: dict[int, Outcome], choice: Choice) -> dict[int, Outcome]:
    """Outcomes of do-nothing and the first slots: a played action outside them does not make a state pivotal."""
    legal = np.flatnonzero(choice.decision.mask & (choice.decision.ids > 0))
    ranked = legal[np.argsort(-choice.decision.score[legal], kind="stable")]
    first = {0, *(int(i) for i in choice.decision.ids[ranked][: len(outcomes)])}
    return {i: f for i, f in outcomes.items() if i in first}


def _random_slot(decision: Decision, rng: np.random.Generator) -> int:
    """Half of the time one of the twelve best slots, else any legal one."""
    legal = np.flatnonzero(decision.mask)
    if rng.random() < 0.5:
        legal = legal[np.argsort(-decision.score[legal], kind="stable")][:12]
    return int(rng.choice(legal))


def _seed(plan: LabelPlan, split: str, index: int) -> int:
    return int(np.random.SeedSequence((plan.seed, SPLITS.index(split), index)).generate_state(1)[0])
