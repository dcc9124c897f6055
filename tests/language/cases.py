"""Made-up cases for the tests of texts and replies."""

from ace_ray.grid.loading import COLLAPSE
from ace_ray.language.view import (
    BadView,
    CandidateView,
    CaseView,
    DeadLineView,
    GridFacts,
    LineView,
    MaintenanceView,
    OutageView,
    Outcome,
    SubstationView,
)

FACTS = GridFacts(36, 59, 22, 37, outages=(0, 9, 45), trip_percent=20_000)


def candidate(action: int, text: str, percent: int, outage: int, score: float) -> CandidateView:
    """A candidate whose loading stands on line 20 and whose worst outage is line 45."""
    return CandidateView(action, text, percent, 20, 2 if percent > 100 else 0, outage, 45, score)


CANDIDATES = (
    candidate(0, "do nothing", 103, 163, -1.03),
    candidate(700, "substation 16: line 18, load 17 to bus 2", 88, 101, -0.88),
    candidate(800, "substation 7: lines 6, 8 to bus 2", 95, 120, -0.95),
    candidate(226, "disconnect line 45 (31-28)", 97, COLLAPSE, -0.97),
)


def made_case(bad: int = 0, outcome: Outcome | None = None) -> CaseView:
    """An overloaded state with four candidates; candidate `bad` is the bad example."""
    return CaseView(
        facts=FACTS,
        when="Monday 6 August, 14:35",
        kind="overloaded",
        step=1174,
        demand_mw=2431,
        loaded=(LineView(20, (4, 7), 103, 2), LineView(18, (9, 16), 96)),
        dead=(DeadLineView(56, (30, 26), 8),),
        outages=(OutageView(45, 163), OutageView(9, COLLAPSE)),
        substations=(SubstationView(16, ("line 18", "line 19", "load 17"), (1, 2, 1)),),
        cooling_substations=((23, 1),),
        cooling_lines=((3, 2),),
        maintenance=(MaintenanceView(5, 40, 96),),
        accompany=(12,),
        candidates=CANDIDATES,
        bad=BadView(CANDIDATES[bad], outcome or Outcome(False, 37, 2.1)),
    )
