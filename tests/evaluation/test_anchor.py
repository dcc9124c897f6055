"""The regression anchor of docs/evaluation.md: eight in-sample scenarios, a guard against changes for the worse."""

import pytest

from ace_ray.config.grid import CriticalSettings, GridSettings, RuleSettings
from ace_ray.evaluation.evaluate import evaluate_all

pytestmark = pytest.mark.unit


def test_the_one_step_search_with_a_check_survives_89_percent_of_the_shipped_chronics():
    settings = GridSettings(
        env="l2rpn_neurips_2020_track1",
        data="shipped",
        critical=CriticalSettings(predicate="overloaded"),
        rules=RuleSettings(revert_every=1),
    )
    (found,) = evaluate_all(["greedy+check"], "chronics=0,1;seeds=0-3", settings, processes=1, progress=False)
    assert len(found.episodes) == 8 and found.illegal_actions == 0
    assert found.survival.mean >= 0.89
