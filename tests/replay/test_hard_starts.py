"""Decisions to start again from: a doomed scenario gets no more of the restarts than any other, and leaves."""

from collections import Counter
from dataclasses import replace

import pytest

from ace_ray.domain import Snapshot
from ace_ray.replay.episodes import HARD_STARTS, RESTARTS, HardStarts
from tests.replay.rows import SCENARIO

pytestmark = pytest.mark.unit


def decisions(seed, n=3):
    return [Snapshot(replace(SCENARIO, env_seed=seed), (), 10 - i) for i in range(n)]


def test_a_scenario_that_is_lost_again_gets_no_further_entry():
    starts = HardStarts(seed=0)
    assert starts.draw() is None
    for seed in range(4):
        starts.lost(decisions(seed))
    for _ in range(RESTARTS - 1):
        starts.lost(decisions(0))
    drawn = Counter(starts.draw().scenario.env_seed for _ in range(400))
    assert len(starts) == 4 and max(drawn.values()) < 150


def test_a_scenario_leaves_after_restarts_lost_in_a_row_and_does_not_come_back():
    starts = HardStarts(seed=0)
    starts.lost(decisions(0))
    starts.lost(decisions(1))
    for _ in range(RESTARTS):
        starts.lost(decisions(0))
    assert len(starts) == 1
    starts.lost(decisions(0))
    assert {starts.draw().scenario.env_seed for _ in range(50)} == {1}


def test_a_survival_counts_anew():
    starts = HardStarts(seed=0)
    starts.lost(decisions(0))
    for _ in range(RESTARTS - 1):
        starts.lost(decisions(0))
    starts.survived(decisions(0)[0].scenario.key())
    starts.lost(decisions(0))
    assert len(starts) == 1


def test_the_oldest_scenario_goes_where_there_are_too_many():
    starts = HardStarts(seed=0)
    for seed in range(HARD_STARTS + 5):
        starts.lost(decisions(seed))
    assert len(starts) == HARD_STARTS
    assert min(starts.draw().scenario.env_seed for _ in range(2000)) >= 5
