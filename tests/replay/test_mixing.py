import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ace_ray.replay.mixing import RunningScale, p_mix, ramped, refined_share, reward_weight, validity

pytestmark = pytest.mark.unit


@given(
    n_rl=st.integers(1, 50),
    weights=st.lists(st.floats(0.1, 10.0), min_size=1, max_size=20),
    valid=st.lists(st.booleans(), min_size=20, max_size=20),
    beta=st.floats(0.0, 1.0),
)
def test_p_mix_is_equation_9(n_rl, weights, valid, beta):
    gates = valid[: len(weights)]
    each, refined = p_mix(n_rl, np.array(weights) * gates, beta)
    total = sum(w for w, v in zip(weights, gates, strict=True) if v)
    if total == 0:
        assert each == pytest.approx(1 / n_rl) and not refined.any()
        return
    assert each == pytest.approx((1 - beta) / n_rl)
    for p, w, v in zip(refined, weights, gates, strict=True):
        assert p == pytest.approx(beta * w / total if v else 0.0)
    assert n_rl * each + refined.sum() == pytest.approx(1.0)


def test_p_mix_without_d_rl_gives_all_mass_to_refined_rows_and_an_empty_buffer_is_refused():
    assert p_mix(0, np.array([1.0, 3.0]), 0.5)[1].tolist() == [0.25, 0.75]
    with pytest.raises(ValueError):
        p_mix(0, np.zeros(3), 0.5)


@given(
    r=st.floats(-5, 5),
    r_hat=st.floats(-5, 5),
    tau=st.floats(0.2, 5.0),
    low=st.floats(0.01, 0.9),
    high=st.floats(1.1, 50),
)
def test_w_r_is_equation_8_where_the_clip_does_not_bind(r, r_hat, tau, low, high):
    weight, clipped = reward_weight(np.array([r_hat - r]), 1.0, tau, low, high)
    exact = math.exp(r_hat / tau) / math.exp(r / tau)
    if low * (1 + 1e-9) < exact < high * (1 - 1e-9):
        assert weight[0] == pytest.approx(exact) and not clipped[0]
    else:
        assert weight[0] == pytest.approx(min(max(exact, low), high))
    assert low <= weight[0] <= high


def test_w_r_of_an_absurd_advantage_is_the_clip_and_not_infinite():
    weight, clipped = reward_weight(np.array([1e6, -1e6]), 1e-3, 1.0, 0.1, 10.0)
    assert weight.tolist() == [10.0, 0.1] and clipped.all()


def test_standardising_by_the_scale_makes_the_weight_free_of_the_rewards_unit():
    advantages = np.array([0.5, 1.0, 2.0])
    weights = []
    for unit in (1.0, 1000.0):
        scale = RunningScale()
        for a in advantages * unit:
            scale.update(a)
        weights.append(reward_weight(advantages * unit, scale.value, 1.0, 1e-3, 1e3)[0])
    np.testing.assert_allclose(weights[0], weights[1])


def test_running_scale_is_the_root_mean_square_and_forgets():
    scale = RunningScale(decay=1.0)
    assert scale.value == 1.0
    for a in (3.0, -4.0, float("nan")):
        scale.update(a)
    assert scale.value == pytest.approx(math.sqrt(12.5))
    forgetful = RunningScale(decay=0.5)
    for a in [100.0] + [1.0] * 60:
        forgetful.update(a)
    assert forgetful.value == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize(
    ("mode", "verdict", "survived", "reward", "terminated", "expected"),
    [
        ("survives", "better", True, -1.0, False, True),
        ("survives", "better", False, 5.0, False, False),
        ("survives", "tie", True, 5.0, False, False),
        ("better", "better", False, -1.0, True, True),
        ("better", "tie", True, 5.0, False, False),
        ("better", "worse", True, 5.0, False, False),
        ("paper", "worse", False, 0.0, False, True),
        ("paper", "better", True, -0.1, False, False),
        ("paper", "better", False, 1.0, True, False),
    ],
)
def test_validity(mode, verdict, survived, reward, terminated, expected):
    assert validity(mode, verdict, survived, reward, terminated) is expected


@given(n=st.integers(1, 200), beta=st.floats(0, 1))
def test_refined_share_has_the_right_mean_and_never_leaves_the_batch(n, beta):
    shares = [refined_share(n, beta, u) for u in np.linspace(0, 1, 400, endpoint=False)]
    assert np.mean(shares) == pytest.approx(beta * n, abs=0.01)
    assert max(shares) - min(shares) <= 1 and min(shares) >= 0 and max(shares) <= n


def test_the_share_of_few_refined_rows_grows_to_beta_and_stays_there():
    shares = [ramped(0.5, valid, ramp=256) for valid in (0, 16, 256, 1000)]
    assert shares == [0.0, 0.5 / 16, 0.5, 0.5] and ramped(0.5, 1, ramp=1) == 0.5
