"""What the method knows of the environment that it is used on. Pure: no environment is imported here.

The rooms that are the method (`refine`, `replay`, `learner`, `finetune`) meet an environment through the protocols
below. A `Domain` reads what was written down about it; a `Simulator` is one environment of it, open in this process,
with its decisions. `ace_ray.grid.domain` and `ace_ray.grid.simulator` are the power grid's.

What a replay shows is an `Outcome`, and there is one definition of *better*: every verdict of a run, of a lesson and of
the acceptance gate is `verdict`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Generic, Literal, Protocol, TypeVar

from ace_ray.schema import Decided

ActionLog = tuple[tuple[int, tuple[int, ...]], ...]
"""Sparse: (environment step from the scenario's start, action ids played at that step); other steps do nothing."""

Verdict = Literal["better", "tie", "worse"]


class Scenario(Protocol):
    """What rebuilds one and the same episode in any process: a frozen dataclass of JSON values."""

    @property
    def group(self) -> str:
        """Episodes of one group are not independent draws; on the grid, the chronic."""
        ...

    def key(self) -> str:
        """Stable id."""
        ...

    def to_json(self) -> str:
        """The fields as a JSON object."""
        ...


S = TypeVar("S")


@dataclass(frozen=True)
class Snapshot(Generic[S]):
    """The state after `step` environment steps of `scenario` under `log`.

    Nothing of the simulator is stored. Replaying the log in any process gives the same state bit for bit, so a snapshot
    of a few hundred bytes stands for an environment of megabytes.
    """

    scenario: S
    log: ActionLog
    step: int

    def key(self) -> str:
        """Stable id of the state: the scenario, the step and a digest of the log up to it."""
        played = json.dumps([[s, list(ids)] for s, ids in self.log if s < self.step])
        digest = hashlib.sha256(played.encode()).hexdigest()[:16]
        return f"{self.scenario.key()}@{self.step}#{digest}"  # type: ignore[attr-defined]

    def to_json(self) -> str:
        """The inverse of `from_json`."""
        scenario = asdict(self.scenario)  # type: ignore[call-overload]
        return json.dumps({"scenario": scenario, "log": self.log, "step": self.step}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str, scenario: type[S]) -> Snapshot[S]:
        """Reads a snapshot; `scenario` is the class of the domain's scenarios (`Domain.scenario`)."""
        content = json.loads(text)
        log = tuple((int(step), tuple(int(i) for i in ids)) for step, ids in content["log"])
        return cls(scenario=scenario(**content["scenario"]), log=log, step=int(content["step"]))


class Decision(Decided, Protocol):
    """What there is to choose from in one state: K slots, each an action by its id (-1 where the slot is empty).

    Slot 0 is do-nothing; `mask` says which slots may be played, and of `score` higher is better.
    """

    def legal_slot(self, id: int) -> int | None:
        """The legal slot of an action, None where there is none."""
        ...

    def standing(self, slot: int) -> tuple[int, float]:
        """1 + the number of legal slots of higher score, and the best one's lead."""
        ...

    def effect(self, slot: int) -> Hashable:
        """What the slot is predicted to do, so coarse that actions of one effect mostly end alike."""
        ...


@dataclass(frozen=True)
class Transition:
    """An action played in a state, and what followed up to a later decision.

    Attributes:
        id: of the action.
        reward, terminated, truncated, info: as the decision environment returns them (`DecisionEnv.step`); discounted
            reward, `steps`, `discount`, `segment` and `rho_max` are those of all steps in between.
        following: the decision it leads to; at the end of a scenario the state that a learner bootstraps from; None
            after a failure.
    """

    id: int
    reward: float
    terminated: bool
    truncated: bool
    info: Mapping[str, Any]
    following: Decision | None


class Branch(Protocol):
    """A copy of the environment at a snapshot, played on by itself.

    Attributes:
        obs: the present observation.
    """

    obs: Any

    def step(self, action: Any) -> tuple[float, bool]:
        """Plays one environment step; returns its reward and whether the episode failed in it."""
        ...

    def digest(self) -> bytes:
        """Of all that the future depends on besides the scenario and the step."""
        ...

    def close(self) -> None:
        """Frees the copy."""
        ...


class Compared(Protocol):
    """What of the settings says how outcomes are compared (`grid.compare`)."""

    @property
    def horizon(self) -> int:
        """Environment steps followed after the compared action."""
        ...

    @property
    def tie(self) -> float:
        """Returns closer than this share of the horizon's reward are a tie."""
        ...

    @property
    def first(self) -> int:
        """Slots of the compared set besides do-nothing and the played action."""
        ...


class Simulator(Protocol):
    """One environment of a domain, this process's own, in which any snapshot can be rebuilt and branched from."""

    @property
    def compare(self) -> Compared:
        """The horizon of outcomes, the tie and the size of the compared set."""
        ...

    def hold(self, snapshots: Iterable[Snapshot]) -> None:
        """Says which snapshots are asked about next: those of one episode then cost one replay together."""
        ...

    def observation(self, snapshot: Snapshot) -> Any:
        """The observation at the snapshot."""
        ...

    def facts(self, obs: Any) -> dict[str, Any]:
        """Columns of a transition record that say what state a decision was in."""
        ...

    def length(self, snapshot: Snapshot) -> int:
        """Environment steps of the snapshot's scenario."""
        ...

    def decide(self, obs: Any, proposals: Sequence[int] = ()) -> Decision:
        """The decision at an observation; proposals get a slot whatever their score."""
        ...

    def action(self, id: int, decision: Any, obs: Any) -> Any:
        """The environment's action that plays `id` at a decision, with what goes along with it."""
        ...

    def branch(self, snapshot: Snapshot) -> Branch:
        """A fresh copy at the snapshot; the caller closes it."""
        ...

    def transition(self, snapshot: Snapshot, decision: Any, id: int, least: int = 1) -> Transition:
        """Plays an action in a copy, then greedily, up to the first decision after `least` environment steps."""
        ...

    def context(self) -> dict[str, Any]:
        """All that an outcome depends on besides snapshot and action, as JSON values."""
        ...

    def close(self) -> None:
        """Closes the environment."""
        ...


class Continuation(Protocol):
    """Who plays on after the compared action; a function of the observation, or futures could not be shared."""

    def reset(self, obs: Any) -> None:
        """A new trajectory starts."""
        ...

    def act(self, observation: Any, reward: float, done: bool = False) -> Any:
        """The environment's action for this observation."""
        ...


class Domain(Protocol):
    """What can be said about a domain without opening an environment of it."""

    @property
    def scenario(self) -> type[Any]:
        """The class of its scenarios (`Scenario`)."""
        ...

    @property
    def faults(self) -> tuple[type[Exception], ...]:
        """What an episode raises that cannot be rebuilt or played; anything else is a bug."""
        ...

    def outdated(self, meta: Mapping[str, Any]) -> str | None:
        """Why outcomes labelled under `meta` are not those of the present domain; None if they are. May take a second.

        Args:
            meta: what was written down where they were labelled (`MODEL_META`).
        """
        ...


@dataclass(frozen=True)
class Outcome:
    """How an action ended that was played in one state and followed over the horizon by the common continuation.

    Attributes:
        survived: alive after `horizon` environment steps, or at the end of the scenario where that comes first.
        steps: environment steps played, the action's own included; the step of the failure counts.
        ret: return over these steps: the *undiscounted* sum of step rewards.
        span: the horizon's reward, the measure of a tie: mean step reward while alive times the steps that the
            horizon holds. 0 where unknown: then the larger |ret| of the two compared outcomes is the measure.
    """

    survived: bool
    steps: int
    ret: float
    span: float = 0.0

    def to_json(self) -> list[float]:
        """`[survived, steps, ret, span]`, numbers only."""
        return [int(self.survived), self.steps, self.ret, self.span]

    @classmethod
    def from_json(cls, row: Iterable[float]) -> Outcome:
        """The inverse of `to_json`."""
        survived, steps, ret, span = row
        return cls(bool(survived), int(steps), float(ret), float(span))

    def rounded(self) -> Outcome:
        """As prompts and cases keep it: four decimals."""
        return replace(self, ret=round(self.ret, 4), span=round(self.span, 4))


def verdict(a: Outcome, b: Outcome, tie: float) -> Verdict:
    """Says whether `a` is better than `b`: survival first, then return.

    Two survivors are compared by return, and so are two failures: the later one has collected more reward. Steps alone
    decide nothing, or two blackouts a step apart would count as a difference.

    Args:
        a, b: outcomes of two actions from the same state over the same horizon.
        tie: returns closer than this share of the horizon's reward are a tie (`CompareSettings.tie`).
    """
    if a.survived != b.survived:
        return "better" if a.survived else "worse"
    measure = max(abs(a.span), abs(b.span)) or max(abs(a.ret), abs(b.ret))
    difference = a.ret - b.ret
    if abs(difference) <= tie * measure:
        return "tie"
    return "better" if difference > 0 else "worse"


def best(outcomes: Mapping[int, Outcome]) -> int:
    """Action id of the best outcome: survival, then return, then the smallest id."""
    return max(outcomes, key=lambda i: (outcomes[i].survived, outcomes[i].ret, -i))


def survived_share(outcome: Outcome, horizon: int) -> float:
    """Share of the horizon survived, 0 to 1; 1 for whoever is alive at its end (or at the scenario's)."""
    return 1.0 if outcome.survived else min(1.0, outcome.steps / horizon)


def survival_regret(known: Iterable[Outcome], proposed: Outcome | None, horizon: int) -> float:
    """Share of the horizon that the best of `known` survives, minus that of the proposal.

    None (a proposal that cannot be played) counts as the worst of `known`. Negative where a proposal outside `known`
    outlives all of it.
    """
    shares = [survived_share(outcome, horizon) for outcome in known]
    return max(shares) - (min(shares) if proposed is None else survived_share(proposed, horizon))


def salvageable(outcomes: Mapping[int, Outcome], played: int) -> bool:
    """True when the played action fails and another of the compared set survives."""
    return not outcomes[played].survived and any(o.survived for i, o in outcomes.items() if i != played)


def pivotal(outcomes: Mapping[int, Outcome]) -> bool:
    """True when some actions of `outcomes` (do-nothing and the first 12) survive and others do not."""
    return len({outcome.survived for outcome in outcomes.values()}) > 1
