"""Cached series give the very episodes of Grid2Op's own reader, and cost neither time nor memory twice."""

import time
from datetime import datetime, timedelta
from types import SimpleNamespace

import grid2op
import numpy as np
import pytest
from grid2op.Chronics import GridStateFromFile, GridStateFromFileWithForecastsWithMaintenance
from lightsim2grid import LightSimBackend

from ace_ray.config.grid import GridSettings
from ace_ray.grid.scenarios.chronic_files import count_rows
from ace_ray.grid.scenarios.chronics import FileSeries, SeriesCache
from ace_ray.grid.scenarios.environment import make_env
from ace_ray.grid.scenarios.maintenance import draw, plan
from ace_ray.grid.scenarios.scenario import Scenario, reset_to

pytestmark = pytest.mark.unit


def trace(env, reset, steps: int) -> list[bytes]:
    """Bytes of what an observation tells, forecast included, for each step of a do-nothing episode."""
    obs, seen = reset(env), []
    for _ in range(steps):
        forecast, *_ = obs.simulate(env.action_space())
        arrays = (obs.rho, obs.topo_vect, obs.gen_p, obs.load_q, obs.time_next_maintenance, forecast.rho)
        seen.append(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays))
        obs, _, done, _ = env.step(env.action_space())
        if done:
            break
    return seen


@pytest.mark.parametrize("name", ["l2rpn_neurips_2020_track1", "l2rpn_wcci_2020", "l2rpn_icaps_2021"])
@pytest.mark.filterwarnings("ignore")
def test_episodes_are_those_of_the_stock_reader(name):
    """track1: planned maintenance and opponent; wcci_2020: maintenance drawn from the seed."""
    stock = grid2op.make(name, test=True, backend=LightSimBackend())
    ours = make_env(GridSettings(env=name, data="shipped"))
    chronic = ours.ace_data.chronics[-1]
    for start in (0, 1, 2, 130):
        scenario = Scenario(name, "shipped", chronic, env_seed=5 + start, start_step=start)
        options = {"time serie id": chronic} | ({"init ts": start} if start else {})
        stock.reset(seed=0)  # an untouched episode: what the stock environment carries over is then nothing
        expected = trace(stock, lambda env, o=options, s=scenario: env.reset(seed=s.env_seed, options=o), 60)
        assert len(expected) > 2
        reset_to(ours, Scenario(name, "shipped", chronic, env_seed=99))
        assert trace(ours, lambda env, s=scenario: reset_to(env, s), 60) == expected
    stock.close()
    ours.close()


@pytest.mark.parametrize("seed", range(5))
def test_maintenance_is_drawn_as_grid2op_draws_it(seed):
    rng = np.random.default_rng(seed)
    hours = sorted(rng.choice(25, 2, replace=False).tolist())
    series = SimpleNamespace(
        n_=int(rng.integers(1000, 4000)),
        n_line=6,
        name_line=[f"line{i}" for i in range(6)],
        line_to_maintenance={"line1", "line3", "line4"},
        time_interval=timedelta(minutes=int(rng.choice([5, 15, 60]))),
        start_datetime=datetime(2050, int(rng.integers(1, 13)), 27, int(rng.integers(0, 24)), 55),
        maintenance_starting_hour=hours[0],
        maintenance_ending_hour=hours[1],
        daily_proba_per_month_maintenance=rng.uniform(0.2, 0.9, 12).tolist(),
        max_daily_number_per_month_maintenance=rng.integers(1, 3, 12).tolist(),
        maintenance_day_of_week=[0, 2, 3, 6],
        space_prng=np.random.RandomState(seed),
        get_maintenance_time_1d=GridStateFromFile.get_maintenance_time_1d,
        get_maintenance_duration_1d=GridStateFromFile.get_maintenance_duration_1d,
    )
    stock = SimpleNamespace(**vars(series) | {"space_prng": np.random.RandomState(seed)})
    stock.maintenance = GridStateFromFileWithForecastsWithMaintenance._generate_maintenance(stock)
    GridStateFromFileWithForecastsWithMaintenance._fix_maintenance_format(stock)
    plan(series, draw(series))
    assert series.maintenance.any()
    for name in ("maintenance", "maintenance_time", "maintenance_duration"):
        ours, theirs = getattr(series, name), getattr(stock, name)
        assert np.array_equal(ours, theirs) and ours.dtype == theirs.dtype
    assert series.space_prng.randint(1 << 30) == stock.space_prng.randint(1 << 30), "as many numbers drawn"


def test_a_second_reset_parses_nothing(env, scenario):
    reset_to(env, scenario)
    best = min(timed(lambda: reset_to(env, scenario)) for _ in range(5))
    assert best < 0.03, f"{best * 1e3:.1f} ms: Grid2Op's own reader takes more than 80"


def timed(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def test_copies_share_the_series_and_go_their_own_way(env, scenario):
    obs = reset_to(env, scenario)
    copy = env.copy()
    theirs, mine = copy.chronics_handler.real_data.data, env.chronics_handler.real_data.data
    assert theirs.load_p is mine.load_p and theirs is not mine
    ahead = [copy.step(copy.action_space())[0].rho.copy() for _ in range(5)]
    assert env.chronics_handler.real_data.data.curr_iter < theirs.curr_iter
    for rho in ahead:
        obs, *_ = env.step(env.action_space())
        assert np.array_equal(obs.rho, rho)
    copy.close()


def test_the_cache_keeps_the_last_used_and_stays_within_its_bytes():
    class Fake(FileSeries):
        def __init__(self):
            self.load_p = np.zeros(100, dtype=np.uint8)

    cache = SeriesCache(capacity_bytes=250)
    first, second, third = Fake(), Fake(), Fake()
    cache.put(("first",), first)
    cache.put(("second",), second)
    assert cache.get(("first",)) is first
    cache.put(("third",), third)
    assert cache.get(("second",)) is None
    assert cache.get(("first",)) is first and cache.get(("third",)) is third
    with pytest.raises(ValueError, match="read-only"):
        first.load_p[0] = 1


def test_without_forecast_files_the_present_is_the_forecast(tmp_path, case14):
    source = case14.ace_data
    chronic = tmp_path / "only"
    chronic.mkdir()
    for file in (
        file for file in (tmp_path_of(source) / source.chronics[0]).iterdir() if "forecasted" not in file.name
    ):
        (chronic / file.name).write_bytes(file.read_bytes())
    bare = make_env(GridSettings(env="l2rpn_case14_sandbox", data=str(tmp_path)))
    obs = reset_to(bare, Scenario("l2rpn_case14_sandbox", str(tmp_path), "only", env_seed=0, start_step=40))
    forecast, _, done, _ = obs.simulate(bare.action_space())
    assert not done
    assert np.allclose(forecast.load_p, obs.load_p, atol=1e-4)
    bare.close()


def tmp_path_of(data):
    from pathlib import Path

    return Path(data.path)


def test_rows_are_counted_without_parsing(env, tmp_path):
    for chronic in env.ace_data.chronics:
        assert count_rows(f"{env.ace_data.path}/{chronic}") == 865
    assert issubclass(FileSeries, GridStateFromFile)
    (tmp_path / "load_p.csv").write_text("a;b\n1;2\n3;4")
    assert count_rows(str(tmp_path)) == 2
    assert count_rows(str(tmp_path / "nothing")) == 0
