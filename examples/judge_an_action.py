"""Judge an action: play greedy's choice and the next best one from the same state, and follow both to the horizon."""

import numpy as np

import ace_ray
from ace_ray.grid.scenarios.environment import make_env
from ace_ray.refine.builder import make_comparator


def main(env: str = "l2rpn_neurips_2020_track1", scenario: str = "train:1") -> str:
    """Prints the outcome of both actions; returns the verdict on the second."""
    play = ace_ray.make(env)
    _, info = play.reset(options={"scenario": scenario})
    decision = info["decision"]
    first, second = np.argsort(-decision.score, kind="stable")[:2]
    comparator = make_comparator(make_env(play.settings), play.engine)
    a, b = (comparator.outcome(play.snapshot(), int(decision.ids[slot])) for slot in (first, second))
    for name, outcome in (("best by score", a), ("second best", b)):
        print(
            f"{name}: {'survived' if outcome.survived else 'blackout'} after {outcome.steps} steps, {outcome.ret:.2f}"
        )
    verdict = comparator.verdict(b, a)
    print(f"the second best is {verdict}")
    return verdict


if __name__ == "__main__":
    main()
