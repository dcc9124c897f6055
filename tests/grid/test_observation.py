"""`GridObservation` is what Grid2Op's observation has, and no more than this project reads."""

import re
from pathlib import Path

import numpy as np
import pytest

import ace_ray
from ace_ray.grid.observation import GridObservation

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("grid", ["env", "case14"])
def test_an_observation_has_every_member_in_the_size_that_is_said(grid, request):
    env = request.getfixturevalue(grid)
    obs = env.reset(seed=0)
    assert isinstance(obs, GridObservation)
    sizes = {"n": env.n_line, "g": env.n_gen, "l": env.n_load, "s": env.n_sub, "b": env.n_storage, "e": env.dim_topo}
    source = Path(ace_ray.__file__).parent / "grid" / "observation.py"
    members = re.findall(r"^    (\w+): NDArray  # \[(\w)[],]", source.read_text(), re.M)
    assert len(members) > 20
    for name, size in members:
        assert np.asarray(getattr(obs, name)).shape[0] == sizes[size], name


def test_every_member_is_read():
    text = "\n".join(
        path.read_text() for path in Path(ace_ray.__file__).parent.rglob("*.py") if path.name != "observation.py"
    )
    members = [name for name in [*GridObservation.__annotations__, "simulate", "get_forecast_arrays", "copy"]]
    assert [name for name in members if not re.search(rf"\.{name}\b", text)] == []
