"""Our agents under Grid2Op's own Runner, which pickles an agent to play in several processes."""

import warnings

import grid2op
import pytest
from grid2op.Runner import Runner
from lightsim2grid import LightSimBackend

from ace_ray.agents.expert.expert import Expert
from ace_ray.agents.export import export
from ace_ray.agents.exported import load
from ace_ray.agents.greedy import Greedy
from ace_ray.config.grid import GridSettings
from ace_ray.grid.engine import DecisionEngine

from .made import small_run

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def stock():
    """The environment as a user makes it, whose class is known to Grid2Op's Runner alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        environment = grid2op.make("l2rpn_neurips_2020_track1", test=True, backend=LightSimBackend())
    yield environment
    environment.close()


@pytest.fixture(params=["greedy", "expert", "exported"])
def agent(request, stock, grid_settings, own_engine, tmp_path):
    """Each with thresholds so low that it decides within a few steps."""
    low = {"critical": {"rho_insecure": 0.3}, "expert": {"rho_overloaded": 0.3}}
    settings = GridSettings(**{**grid_settings.model_dump(), **low})
    if request.param == "exported":
        return load(stock, export(small_run(tmp_path / "tiny", own_engine, settings), tmp_path / "exported"))
    kind = {"greedy": Greedy, "expert": Expert}[request.param]
    return kind(stock.action_space, DecisionEngine(stock, settings))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.timeout(300)
def test_two_processes_play_what_one_plays(stock, agent):
    runner = Runner(**stock.get_params_for_runner(), agentClass=None, agentInstance=agent)

    def played(processes: int) -> list[tuple[str, float, int]]:
        done = runner.run(nb_episode=2, nb_process=processes, max_iter=10, env_seeds=[7, 8], pbar=False)
        return sorted((chronic, reward, steps) for _, chronic, reward, steps, _ in done)

    alone = played(1)
    assert len(alone) == 2 and agent.decision_seconds
    assert played(2) == alone
