"""Evaluations made by hand."""

from ace_ray.evaluation.result import Episode, Evaluation, percentiles


def evaluation(agent: str, steps: list[int], chronics: int = 4, **changes: object) -> Evaluation:
    """One episode of 100 steps for each entry of `steps`, chronics in turn."""
    episodes = tuple(
        Episode(f"week_{i % chronics}", 500 + i, 0, n, 100, n // 10, 0.08 * n - (n < 100), n // 5, 0)
        for i, n in enumerate(steps)
    )
    fields: dict = {
        "agent": agent,
        "env": "l2rpn_neurips_2020_track1",
        "predicate": "both",
        "data": "packaged",
        "split": "test",
        "scenarios": f"test:{len(steps)}",
        "in_sample": False,
        "episodes": episodes,
        "decision_ms": percentiles([0.01 * (i + 1) for i in range(100)]),
        "catalogue": "abc",
    }
    return Evaluation(**(fields | changes))
