import numpy as np
import pytest

from ace_ray.monitoring.statistics import NO_INTERVAL, OVER_CHRONICS, OVER_SEEDS, interval

pytestmark = pytest.mark.unit


def test_covers_the_mean_over_chronics_at_about_the_stated_rate():
    """Chronics differ much, seeds little: an interval that resampled episodes alone would cover far too rarely."""
    generator = np.random.default_rng(1)
    hits, trials = 0, 60
    chronics = [f"c{i}" for i in range(12) for _ in range(6)]
    for _ in range(trials):
        level = generator.normal(0.5, 0.2, size=12)
        values = np.repeat(level, 6) + generator.normal(0, 0.01, size=72)
        found = interval(values, chronics)
        hits += found.low <= 0.5 <= found.high
    assert 0.82 <= hits / trials <= 1.0


def test_wider_than_a_plain_bootstrap_when_episodes_share_chronics():
    values = [0.1, 0.12, 0.11, 0.9, 0.88, 0.91, 0.5, 0.52, 0.49]
    shared = interval(values, ["a"] * 3 + ["b"] * 3 + ["c"] * 3)
    apart = interval(values, [str(i) for i in range(9)])
    assert shared.high - shared.low > 1.3 * (apart.high - apart.low)
    assert shared.mean == apart.mean == pytest.approx(np.mean(values))


def test_fewer_than_three_chronics_are_resampled_over_seeds_only_and_says_so():
    values = [0.0, 0.2, 1.0, 0.8]
    found = interval(values, ["a", "a", "b", "b"])
    assert found.over == OVER_SEEDS
    # Resampling chronics as well could give 0.1 or 0.9; seeds alone keep one half from each chronic.
    assert 0.4 <= found.low < found.high <= 0.6


def test_no_interval_from_single_episodes():
    found = interval([0.3, 0.5], ["a", "b"])
    assert (found.ci95, found.over, found.contains_zero) == (None, NO_INTERVAL, None)


def test_same_input_same_interval_and_zero_is_noticed():
    values, chronics = [-0.1, 0.2, 0.05, -0.02], ["a", "b", "c", "d"]
    assert interval(values, chronics) == interval(values, chronics)
    assert interval(values, chronics).over == OVER_CHRONICS
    assert interval(values, chronics).contains_zero
    assert not interval([0.1, 0.2, 0.3], ["a", "b", "c"]).contains_zero


def test_refuses_values_without_their_chronic():
    with pytest.raises(ValueError, match="2 values for 1"):
        interval([1.0, 2.0], ["a"])
