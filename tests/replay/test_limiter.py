import pytest
from hypothesis import given
from hypothesis import strategies as st

from ace_ray.replay.limiter import UpdateLimiter

pytestmark = pytest.mark.unit


@given(
    ratio=st.floats(0.01, 20),
    band=st.floats(0.1, 200),
    warmup=st.integers(0, 500),
    moves=st.lists(st.integers(0, 1), min_size=50, max_size=300),
)
def test_never_deadlocks_and_stays_within_the_band(ratio, band, warmup, moves):
    limiter = UpdateLimiter(ratio, band, warmup)
    decisions = updates = 0
    for prefer_update in moves:
        may_update, may_collect = (
            limiter.updates_due(decisions, updates) > 0,
            limiter.may_collect(decisions, updates),
        )
        assert may_update or may_collect
        if may_update and (prefer_update or not may_collect):
            updates += 1
        else:
            decisions += 1
        if decisions >= warmup:
            ahead = updates - limiter.target(decisions)
            assert -band - ratio - 1e-6 <= ahead <= 1 + 1e-6


def test_updates_due_bring_the_learner_to_the_ratio_and_not_before_warm_up():
    limiter = UpdateLimiter(ratio=0.5, band=10, warmup=100)
    assert limiter.updates_due(99, 0) == 0
    assert limiter.updates_due(140, 5) == 15
    assert limiter.updates_due(140, 25) == 0
    assert limiter.may_collect(140, 10) and not limiter.may_collect(140, 9)
