from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ace_ray.agents.expert.forecast_trust import Trust
from ace_ray.grid.forecast import Injections, foretell, foretold, simulate
from ace_ray.grid.scenarios.scenario import reset_to

pytestmark = pytest.mark.unit
LOADS, GENERATORS, MEMORY, LITTLE = 3, 4, 0.95, 1e-3


def observation(now, next_step):
    """What `Trust` reads of an observation: rows of loads, reactive loads and generation, now and forecast."""
    forecast = [np.array(rows) for rows in zip(now, next_step, strict=True)]
    return SimpleNamespace(
        load_p=now[0],
        load_q=now[1],
        gen_p=now[2],
        _forecasted_inj=[None, None],
        get_forecast_arrays=lambda: (*forecast, None),
    )


def weeks(seed, steps, noise):
    """Random walks, and forecasts of their next step that are off by `noise`, one for each kind."""
    rng = np.random.default_rng(seed)
    sizes = (LOADS, LOADS, GENERATORS)
    series = [50.0 + rng.normal(size=(steps + 1, size)).cumsum(axis=0) for size in sizes]
    said = [x[1:] + off * rng.normal(size=x[1:].shape) for x, off in zip(series, noise, strict=True)]
    return [observation([x[t] for x in series], [f[t] for f in said]) for t in range(steps)]


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10_000), steps=st.integers(3, 40), noise=st.floats(0.0, 5.0))
def test_shares_are_the_weighted_least_squares_slopes_of_what_happened_on_what_was_forecast(seed, steps, noise):
    seen, trust = weeks(seed, steps, (noise, noise, noise)), Trust()
    for obs in seen:
        trust.see(obs)
    roots = MEMORY ** (0.5 * np.arange(steps - 1)[::-1])
    for kind, name in enumerate(("load_p", "load_q", "gen_p")):
        values = np.array([getattr(obs, name) for obs in seen])
        said = np.array([obs.get_forecast_arrays()[kind][1] for obs in seen])
        for i, share in enumerate(trust.shares()[kind]):
            forecast, happened = (said[:-1] - values[:-1])[:, i], np.diff(values[:, i])
            slope = np.linalg.lstsq((roots * forecast)[:, None], roots * happened, rcond=None)[0][0]
            known = ((roots * forecast) ** 2).sum() > LITTLE
            assert share == pytest.approx(np.clip(slope, 0.0, 1.0) if known else 1.0, abs=1e-9)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10_000))
def test_a_forecast_that_comes_true_is_taken_and_one_that_never_does_is_not(seed):
    *past, last = weeks(seed, 30, (0.0, 0.0, 0.0))
    trust = Trust()
    for obs in past:
        trust.see(obs)
    taken = trust.see(last)
    for values, truth in zip(taken, foretold(last), strict=True):
        assert values == pytest.approx(truth)

    still, deaf = [np.full(n, 50.0) for n in (LOADS, LOADS, GENERATORS)], Trust()
    rng = np.random.default_rng(seed)
    for _ in range(30):
        taken = deaf.see(observation(still, [x + rng.normal(size=x.size) for x in still]))
    for values, here in zip(taken, still, strict=True):
        assert values == pytest.approx(here)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10_000), noise=st.floats(0.5, 20.0))
def test_generation_follows_the_load_by_those_whose_forecasts_say_little(seed, noise):
    seen, trust = weeks(seed, 40, (0.0, 0.0, noise)), Trust()
    for obs in seen:
        expected = trust.see(obs)
    now, shares = seen[-1], trust.shares()[2]
    assert (expected.gen_p - now.gen_p).sum() == pytest.approx((expected.load_p - now.load_p).sum(), abs=1e-6)
    trusted = now.gen_p + shares * (foretold(now).gen_p - now.gen_p)
    moved, free = expected.gen_p - trusted, (1.0 - shares) * now.gen_p
    assert moved == pytest.approx(moved.sum() * free / free.sum())


def test_the_first_step_takes_the_forecast_and_no_forecast_means_no_change():
    first = weeks(0, 1, (1.0, 1.0, 1.0))[0]
    for values, said in zip(Trust().see(first), foretold(first), strict=True):
        assert values == pytest.approx(said)
    first._forecasted_inj = []
    for values, here in zip(Trust().see(first), (first.load_p, first.load_q, first.gen_p), strict=True):
        assert values == pytest.approx(here)


def test_simulate_takes_the_injections_that_are_put_in_the_place_of_the_forecast(env, scenario, engine):
    obs = reset_to(env, scenario)
    for _ in range(3):
        obs, _, _, _ = env.step(env.action_space())
    action = engine.action((int(engine.catalogue.offsets[23]) + 5,), obs)
    forecast = simulate(obs, action).obs.rho.copy()
    at_once, _, _, _ = obs.simulate(action, time_step=0)  # Grid2Op's own, with the injections of now
    foretell(obs, Injections(obs.load_p, obs.load_q, obs.gen_p))
    ours = simulate(obs, action).obs
    assert ours.rho == pytest.approx(at_once.rho, abs=1e-5)
    assert np.abs(ours.rho - forecast).max() > 1e-3
    stock, _, _, _ = obs.simulate(action)
    assert np.array_equal(stock.rho, simulate(obs, action).obs.rho)


def test_another_observation_keeps_its_forecast(env, scenario):
    obs = reset_to(env, scenario)
    before = foretold(obs)
    foretell(obs, Injections(*(0.5 * values for values in before)))
    assert foretold(obs).gen_p == pytest.approx(0.5 * before.gen_p)
    again = foretold(reset_to(env, scenario))
    assert all(np.array_equal(one, two) for one, two in zip(again, before, strict=True))
