"""Evaluation on several processes, with a real Ray."""

import signal
import subprocess
import sys
import time
from dataclasses import replace

import psutil
import pytest
import ray

from ace_ray.config.errors import DataError, ResourceError, WorkerError
from ace_ray.evaluation.evaluate import evaluate_all
from ace_ray.evaluation.player import EpisodeJob
from ace_ray.evaluation.pool import Pool
from ace_ray.grid.scenarios.scenario import Scenario

pytestmark = pytest.mark.ray

SHORT = "chronics=0;seeds=0-1;steps=30"


@pytest.fixture(scope="module")
def local_ray():
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_evaluates_in_parallel_as_in_one_process_and_leaves_a_ray_that_was_there(local_ray, grid_settings):
    """The third worker finds no CPU: it gets no work and holds nothing up."""
    agents = ["do-nothing", "greedy"]
    parallel = evaluate_all(agents, SHORT, grid_settings, processes=3, progress=False)
    alone = evaluate_all(agents, SHORT, grid_settings, processes=1, progress=False)
    assert [one.episodes for one in parallel] == [one.episodes for one in alone]
    assert len(parallel[0].episodes) == 2 and parallel[1].decision_ms["p50"] > 0
    assert ray.is_initialized()


def test_errors_inside_a_worker_keep_their_words_and_one_that_dies_is_an_error(local_ray, grid_settings, tmp_path):
    scenario = Scenario(grid_settings.env, "shipped", "Scenario_august_dummy", 0, max_steps=5)
    lost = EpisodeJob("do-nothing", grid_settings, replace(scenario, chronic="no_such_week"))
    folder = tmp_path / "deadly_submission"
    folder.mkdir()
    (folder / "__init__.py").write_text("import os\ndef make_agent(env, path):\n    os._exit(9)\n")
    deadly = EpisodeJob(f"{folder}:make_agent", grid_settings, scenario)
    with Pool(2) as pool:
        with pytest.raises(DataError, match="no_such_week") as caught:
            list(pool.run([lost, lost]))
        assert type(caught.value) is DataError and caught.value.remedy
        with pytest.raises(WorkerError, match="evaluation worker"):
            list(pool.run([deadly, deadly]))


def test_a_handler_of_sigterm_stays(grid_settings, monkeypatch):
    def heard(*_: object) -> None: ...

    before = signal.signal(signal.SIGTERM, heard)
    try:
        monkeypatch.setattr(ray, "is_initialized", lambda: False)
        monkeypatch.setattr(ray, "shutdown", lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))  # as ray.init does
        monkeypatch.setattr(ray, "init", refuse)
        evaluate_all(["do-nothing"], "chronics=0;seeds=0-1;steps=2", grid_settings, processes=2, progress=False)
        assert signal.getsignal(signal.SIGTERM) is heard
    finally:
        signal.signal(signal.SIGTERM, before)


def refuse(**_: object) -> None:
    raise Exception("timed out during startup")


def test_where_ray_does_not_start_one_process_plays(grid_settings, monkeypatch, caplog):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray, "init", refuse)
    (found,) = evaluate_all(["do-nothing"], "chronics=0;seeds=0-1;steps=5", grid_settings, processes=2, progress=False)
    assert [episode.steps for episode in found.episodes] == [5, 5]
    assert "timed out" in caplog.text and "one process plays" in caplog.text
    job = EpisodeJob("do-nothing", grid_settings, Scenario(grid_settings.env, "shipped", "Scenario_august_dummy", 0))
    monkeypatch.setenv("RAY_ADDRESS", "nowhere:1")
    monkeypatch.setattr(ray, "init", lambda **_: (_ for _ in ()).throw(ConnectionError("nobody there")))
    with pytest.raises(ResourceError, match="nobody there"), Pool(2) as pool:
        list(pool.run([job, job]))


def test_workers_end_with_an_evaluation_that_is_killed():
    command = "evaluate --agent do-nothing --data shipped --scenarios chronics=0,1;seeds=0-500 --processes 2"
    parent = psutil.Popen([sys.executable, "-m", "ace_ray", *command.split()], stderr=subprocess.DEVNULL)
    try:
        until, workers, family = time.monotonic() + 240, [], {}
        while len(workers) < 2 and time.monotonic() < until:
            time.sleep(0.5)
            family = {one: _title(one) for one in parent.children(recursive=True)}
            workers = [one for one, title in family.items() if "_Worker" in title]
        assert len(workers) == 2
    finally:
        parent.kill()
    parent.wait()
    # Ray's two agents, which hold no memory and no CPU to speak of, ask for the head a minute more before they end.
    _, alive = psutil.wait_procs([one for one, title in family.items() if "Agent" not in title], timeout=60)
    assert not alive, [family[one] for one in alive]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
