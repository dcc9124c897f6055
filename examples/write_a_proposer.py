"""Write a proposer: who names the better action in a refinement. This one lightens the worst contingency."""

from collections.abc import Sequence

import numpy as np

import ace_ray
from ace_ray.grid.scenarios.environment import make_env
from ace_ray.refine.builder import make_comparator
from ace_ray.refine.case import Attempt, Case, Proposal
from ace_ray.refine.rounds import make_case, think


class LightestContingency:
    """Proposes the untried candidate with the lowest rho after its worst contingency."""

    def propose(self, case: Case, history: Sequence[Attempt]) -> Proposal:
        """One proposal; `history` holds the earlier rounds with what their replays showed."""
        tried = [case.played, *(attempt.id for attempt in history)]
        free = np.flatnonzero(case.decision.mask & ~np.isin(case.decision.ids, tried))
        worst = case.decision.rho_outage[free].max(axis=1)
        return Proposal(int(case.decision.ids[free[worst.argmin()]]), model="lightest contingency")


def main(scenario: str = "train:1") -> list[Attempt]:
    """Doing nothing is the bad example; prints and returns the rounds."""
    play = ace_ray.make()
    play.reset(options={"scenario": scenario})
    comparator = make_comparator(make_env(play.settings), play.engine)
    snapshot = play.snapshot()
    case = make_case(comparator, snapshot, 0, {0: comparator.outcome(snapshot, 0)})
    return think(comparator, LightestContingency(), case, rounds=2, tell=lambda attempt: print(attempt.verdict))


if __name__ == "__main__":
    main()
