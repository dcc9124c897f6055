"""Replay actor, rollout runner and refiners as Ray processes."""

import os
import signal
import time

import numpy as np
import pytest
import ray

from ace_ray.coevolution.algorithm import ACE
from ace_ray.coevolution.config import ACEConfig, Grid
from ace_ray.config.run import RunSettings
from ace_ray.grid.domain import GridDomain
from ace_ray.refine.processes import Refiners
from ace_ray.replay.actor import start_replay
from ace_ray.rollout.runner import RolloutRunner
from ace_ray.schema import States
from tests.replay.rows import IDENTITY, chain, chain_states
from tests.rollout.test_worker import blackouts

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster():
    ray.init(address="local", num_cpus=3, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def settings(grid_settings):
    grid = grid_settings.model_copy(update={"compare": grid_settings.compare.model_copy(update={"horizon": 20})})
    sizes = {"capacity": 512, "refined_capacity": 16, "warmup": 8}
    refine = {"refiner": "search", "proposals": 2, "lookback": 6, "queue": 64}
    return RunSettings(grid=grid, replay=sizes, refine=refine)


@pytest.fixture(scope="module")
def grid(settings):
    return Grid.describe(settings.grid)


def wait_for(condition, seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(f"nothing within {seconds} s")


def test_a_replay_actor_that_is_killed_comes_back_with_what_was_sealed(cluster, settings, tmp_path):
    replay = start_replay(tmp_path, settings, IDENTITY, GridDomain())
    first = ray.get(replay.reserve.remote(6))
    ray.get(replay.store.remote(chain_states(first, 6), chain(first, 6)))
    ray.get(replay.seal.remote())
    pid = ray.get(replay.__ray_call__.remote(lambda core: os.getpid()))
    os.kill(pid, signal.SIGKILL)

    def stats():
        try:
            return ray.get(replay.stats.remote(), timeout=30)
        except ray.exceptions.RayActorError:
            return None

    found = wait_for(stats, 60)
    assert found["decisions"] == 6 and found["table"]["transitions"] == 6
    assert ray.get(replay.reserve.remote(1)) >= 6
    (batch,) = ray.get(replay.sample.remote(16))
    assert batch["slots"].shape == (16, 4, 3)
    ray.kill(replay)


def test_a_refiner_process_works_the_queue_off_and_stops_when_told(cluster, settings, grid, env, engine, tmp_path):
    replay = start_replay(tmp_path, settings, grid.identity, GridDomain())
    _, states, rows, pending, _ = next(blackouts(env, engine, settings.grid, lookback=6))
    stored = States.concat(list(states.values()))
    items = [item for item in pending if item.chain == rows[0]["episode"]]
    ray.get(replay.reserve.remote(5000))
    ray.get(replay.store.remote(stored, rows, items))
    refiners = Refiners(settings, replay)

    def finished():
        assert refiners.check() == []
        counts = ray.get(replay.stats.remote())["refinement"]
        return counts["unsalvageable"] + counts["accepted"] + counts["rejected"] + counts["survived"] >= 2

    wait_for(finished, 150)
    refiners.stop()
    stats = ray.get(replay.stats.remote())
    done = sum(stats["refinement"][name] for name in ("unsalvageable", "accepted", "rejected", "survived", "skipped"))
    assert stats["refinement"]["failed"] == 0 and done <= len(items) + 6 and stats["table"]["lost"] == 0
    ray.kill(replay)


def test_a_runner_collects_with_the_weights_that_it_is_given(cluster, settings, grid, tmp_path):
    replay = start_replay(tmp_path, settings, grid.identity, GridDomain())
    config = ACEConfig.from_settings(ACE, settings, grid=grid, replay=replay, runner=RolloutRunner, folder=tmp_path)
    runner = ray.remote(num_cpus=1)(RolloutRunner).remote(config=config, worker_index=1)
    report = ray.get(runner.sample.remote(), timeout=150)
    assert report["decisions"] > 0 and report["policy_version"] == 0
    state = ray.get(runner.get_state.remote())
    ray.get(runner.set_state.remote({**state, "version": 7, "memory": [5, 9]}))
    again = ray.get(runner.get_state.remote())
    assert again["version"] == 7 and again["memory"] == [5, 9]
    wait_for(lambda: ray.get(runner.sample.remote())["policy_version"] == 7, 60)
    wait_for(lambda: ray.get(replay.limits.remote())["decisions"] >= report["decisions"], 30)
    (batch,) = ray.get(replay.sample.remote(32))
    assert batch["mask"][np.arange(32), batch["slot"]].all() and set(batch["policy_version"]) <= {0, 7}
    ray.get(runner.stop.remote())
    ray.kill(runner)
    ray.kill(replay)
