"""The process table and its check."""

import pytest

from ace_ray.coevolution import resources
from ace_ray.config.errors import ResourceError
from ace_ray.config.run import RunSettings

pytestmark = pytest.mark.unit


def settings(**sections: dict) -> RunSettings:
    return RunSettings.model_validate(sections)


def test_every_process_of_the_profile_is_listed():
    roles = [p.role for p in resources.processes(settings(learner={"num_learners": 1}))]
    assert roles == ["driver", "learner", "replay", "rollout worker", "refiner", "llm replica", "fine-tuning job"]
    assert [p.role for p in resources.processes(settings(refine={"refiner": "off"}))] == [
        "driver", "replay", "rollout worker",
    ]  # fmt: skip
    assert "llm replica" not in [p.role for p in resources.processes(settings(refine={"refiner": "search"}))]


def test_the_default_profile_fits_two_cores():
    rows = resources.processes(settings())
    resources.check(rows, {"CPU": 2.0})
    assert resources.table(rows).splitlines()[-1].split() == ["sum", "2.00", "0.00"]


def test_what_does_not_fit_is_named():
    rows = resources.processes(settings(rollout={"workers": 8}))
    with pytest.raises(ResourceError, match=r"needs 5\.5 CPU, the cluster has 2") as error:
        resources.check(rows, {"CPU": 2.0})
    assert "resources.worker_cpu (4)" in error.value.remedy and "rollout worker " in error.value.problem
    rows = resources.processes(settings(resources={"llm_gpu": 1.0}))
    with pytest.raises(ResourceError, match=r"needs 1 GPU, the cluster has 0") as error:
        resources.check(rows, {"CPU": 4.0})
    assert "resources.llm_gpu (1)" in error.value.remedy


def test_too_little_memory_is_named_with_what_to_lower():
    resources.check_memory(settings(), free_mb=12_000)
    with pytest.raises(ResourceError, match="this machine has 1000 MB free") as error:
        resources.check_memory(settings(), free_mb=1000)
    assert "replay.capacity" in error.value.remedy
    small = settings(replay={"capacity": 1000}, refine={"refiner": "off"})
    assert resources.needed_memory_mb(small) < resources.needed_memory_mb(settings()) - 3000
