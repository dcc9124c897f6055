"""What a language model is told about one decision, as plain data.

A `CaseView` is the whole content of an actor prompt and is JSON-able: labels and gate files keep it, so a prompt can be
written again (other candidate order, other list length) where neither Grid2Op nor the grid is at hand. Percent values
are whole numbers: loading = current over the thermal limit of the line, times 100; `COLLAPSE` stands for no power
flow at all.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ace_ray.domain import Outcome
from ace_ray.grid.loading import COLLAPSE

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


def date_text(weekday: int, day: int, month: int, hour: int, minute: int) -> str:
    """'Monday 6 August, 14:35'; weekday 0 is Monday, month 1 is January."""
    return f"{_DAYS[weekday]} {day} {_MONTHS[month - 1]}, {hour:02d}:{minute:02d}"


@dataclass(frozen=True)
class GridFacts:
    """What never changes on one grid.

    Attributes:
        substations, lines, generators, loads: Counts.
        outages: Line ids of the credible outages (those that the opponent may cut, or all).
        overload_steps: Steps that a line stands above 100 % before it is tripped.
        trip_percent: Loading that trips a line at once.
        cooldown: Steps for which a changed line or substation cannot be changed again.
        step_minutes: Length of one step.
        horizon: Steps over which two actions are compared.
        opponent: Whether an opponent attacks lines.
        attack_steps: Steps for which an attacked line stays out; 0: unknown.
        offset: What the reward of a step subtracts from load / production.
    """

    substations: int
    lines: int
    generators: int
    loads: int
    outages: tuple[int, ...]
    overload_steps: int = 3
    trip_percent: int = 200
    cooldown: int = 3
    step_minutes: int = 5
    horizon: int = 100
    opponent: bool = True
    attack_steps: int = 0
    offset: float = 0.9

    @classmethod
    def from_dict(cls, row: dict[str, Any]) -> GridFacts:
        """Inverse of `dataclasses.asdict` after a trip through JSON."""
        return cls(**{**row, "outages": tuple(row["outages"])})


@dataclass(frozen=True)
class LineView:
    """A loaded line: id, its two substations, loading in percent, steps spent above 100 % so far."""

    line: int
    ends: tuple[int, int]
    percent: int
    over_steps: int = 0


@dataclass(frozen=True)
class DeadLineView:
    """A line out of service and the steps until it may be reconnected (0: now)."""

    line: int
    ends: tuple[int, int]
    wait: int


@dataclass(frozen=True)
class OutageView:
    """What the loss of `line` would do now: the highest loading among the remaining lines, in percent."""

    line: int
    percent: int


@dataclass(frozen=True)
class MaintenanceView:
    """A line that goes out for maintenance in `wait` steps, for `steps` steps."""

    line: int
    wait: int
    steps: int


@dataclass(frozen=True)
class FlowView:
    """Power of one element of a substation.

    Attributes:
        to: Substation at the other end of a line; -1 for what is no line.
        mw: Whole MW: what a line takes out of the substation (negative: brings in), what a load or a charging storage
            unit takes, what a generator gives.
        percent: Loading of a line; -1 for what is no line.
    """

    to: int
    mw: int
    percent: int


@dataclass(frozen=True)
class SubstationView:
    """The elements of one substation in catalogue order, each with its bus (0: disconnected), and its cooldown.

    `flows`, where the prompt shows them, has one entry an element.
    """

    substation: int
    elements: tuple[str, ...]
    buses: tuple[int, ...]
    wait: int = 0
    flows: tuple[FlowView, ...] = ()


@dataclass(frozen=True)
class CandidateView:
    """One action and its predicted effect.

    Attributes:
        id: Catalogue id (0: do nothing).
        text: What it moves, relative to the present topology.
        percent, line: Highest loading after the action and the line that bears it.
        over: Number of lines above 100 % after the action.
        outage_percent, outage_line: Highest loading after the worst credible outage, and the line lost; -1 if unknown.
        else_percent: Where that outage is a collapse: the highest loading after any other one; else -1.
        score: Slot score of the decision engine (higher is better).
        danger: Risk: how close it leaves the grid to a blackout, in percent (`grid.risk`); -1 if unknown.
    """

    id: int
    text: str
    percent: int
    line: int
    over: int
    outage_percent: int
    outage_line: int
    score: float
    else_percent: int = -1
    danger: int = -1

    @property
    def collapses(self) -> bool:
        """Whether no power flow is predicted after the action."""
        return self.percent >= COLLAPSE

    @property
    def effect(self) -> tuple[int, int]:
        """Highest loading after the action, now and after the worst outage: actions alike in both often end alike."""
        return self.percent, self.outage_percent


@dataclass(frozen=True)
class BadView:
    """The bad example: the action that was played, and how it ended (None: not replayed)."""

    action: CandidateView
    outcome: Outcome | None


@dataclass(frozen=True)
class CaseView:
    """One decision as it is shown to the actor; `candidates[i]` is called candidate i in the prompt."""

    facts: GridFacts
    when: str
    kind: str
    step: int
    demand_mw: int
    loaded: tuple[LineView, ...]
    dead: tuple[DeadLineView, ...]
    outages: tuple[OutageView, ...]
    substations: tuple[SubstationView, ...]
    cooling_substations: tuple[tuple[int, int], ...]
    cooling_lines: tuple[tuple[int, int], ...]
    maintenance: tuple[MaintenanceView, ...]
    accompany: tuple[int, ...]
    candidates: tuple[CandidateView, ...]
    bad: BadView | None = field(default=None)

    def with_bad(self, action: CandidateView, outcome: Outcome | None) -> CaseView:
        """The same case with another bad example."""
        return replace(self, bad=BadView(action, outcome))

    def number(self, catalogue_id: int) -> int | None:
        """The candidate number of a catalogue id, None if it is not listed."""
        return next((i for i, c in enumerate(self.candidates) if c.id == catalogue_id), None)

    def to_json(self) -> str:
        """A compact JSON text; `from_json` is its inverse."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> CaseView:
        """Rebuild a view written by `to_json`."""
        row = json.loads(text)
        bad = row["bad"]
        return cls(
            when=row["when"],
            kind=row["kind"],
            step=row["step"],
            demand_mw=row["demand_mw"],
            cooling_substations=tuple(map(_pair, row["cooling_substations"])),
            cooling_lines=tuple(map(_pair, row["cooling_lines"])),
            maintenance=tuple(MaintenanceView(**x) for x in row["maintenance"]),
            facts=GridFacts.from_dict(row["facts"]),
            loaded=tuple(LineView(x["line"], _pair(x["ends"]), x["percent"], x["over_steps"]) for x in row["loaded"]),
            dead=tuple(DeadLineView(x["line"], _pair(x["ends"]), x["wait"]) for x in row["dead"]),
            outages=tuple(OutageView(**x) for x in row["outages"]),
            substations=tuple(
                SubstationView(
                    x["substation"],
                    tuple(x["elements"]),
                    tuple(x["buses"]),
                    x["wait"],
                    tuple(FlowView(**flow) for flow in x.get("flows", ())),
                )
                for x in row["substations"]
            ),
            accompany=tuple(row["accompany"]),
            candidates=tuple(CandidateView(**x) for x in row["candidates"]),
            bad=bad and BadView(CandidateView(**bad["action"]), bad["outcome"] and Outcome(**bad["outcome"])),
        )


def _pair(ends: list[int]) -> tuple[int, int]:
    return int(ends[0]), int(ends[1])
