"""An evaluation goes on with further seeds until its interval is narrow enough."""

from dataclasses import replace

import pytest

from ace_ray.config.errors import ConfigError
from ace_ray.config.grid import GridSettings
from ace_ray.evaluation.evaluate import evaluate_all
from ace_ray.evaluation.precision import Precision, halfwidth
from ace_ray.grid.scenarios.scenario import Scenario

from .made import evaluation

pytestmark = pytest.mark.unit

WEEKS = [Scenario("grid", "packaged", f"week_{i % 4}", 500 + i) for i in range(32)]


def test_the_width_is_that_of_the_survival_of_one_agent_and_of_the_differences_of_several():
    spread = evaluation("a", [10, 90] * 16)
    low, high = spread.survival.ci95
    assert halfwidth([spread]) == pytest.approx(50 * (high - low)) and high > low
    assert halfwidth([spread, replace(spread, agent="b")]) == 0.0
    assert halfwidth([evaluation("a", [50, 60], chronics=2)]) is None


def test_each_chronic_gets_new_seeds_until_the_interval_is_narrow_or_the_maximum_is_played():
    wide = [evaluation("a", [10, 90] * 16)]
    new = Precision(1.0, 100).further(wide, WEEKS)
    assert sorted(one.chronic for one in new) == [f"week_{i}" for i in range(4) for _ in range(2)]  # 8 seeds a chronic
    assert len({one.env_seed for one in (*WEEKS, *new)}) == len(WEEKS) + len(new)
    assert {replace(one, env_seed=0) for one in new} == {replace(one, env_seed=0) for one in WEEKS}
    assert len(Precision(1.0, 35).further(wide, WEEKS)) == 3 and Precision(1.0, 32).further(wide, WEEKS) == ()
    assert Precision(99.0, 100).further(wide, WEEKS) == ()


def test_what_was_asked_for_is_played_first_and_further_seeds_after_it(grid_settings):
    given = "chronics=0;seeds=6-7;start=100;steps=50"
    alone = evaluate_all(["do-nothing"], given, grid_settings, processes=1, progress=False)[0]
    (found,) = evaluate_all(["do-nothing"], given, grid_settings, processes=1, progress=False, until=Precision(0.1, 4))
    assert found.episodes[:2] == alone.episodes and alone.survival.ci95 is not None
    assert [one.env_seed for one in found.episodes] == [6, 7, 8, 9]
    assert found.scenarios == f"{given} and 2 with further seeds"


def test_seeds_that_change_nothing_are_refused():
    still = GridSettings(env="l2rpn_case14_sandbox", data="shipped")
    with pytest.raises(ConfigError, match="nothing in l2rpn_case14_sandbox is drawn"):
        Precision(1.0, 10).check([Scenario("l2rpn_case14_sandbox", "shipped", "0000", 0)], still)
