"""ACE on a fake decision env with real Ray, real replay actor and shards, real RLlib runners and learner."""

import time
from pathlib import Path

import numpy as np
import pytest
import ray

from ace_ray.coevolution import checkpoint
from ace_ray.coevolution.algorithm import ACE
from ace_ray.coevolution.config import ACEConfig, Grid
from ace_ray.config.errors import WorkerError
from ace_ray.config.run import RunSettings
from ace_ray.learner import state as learner_state
from ace_ray.policy import checkpoint as policy_files
from ace_ray.replay.actor import start_replay
from tests.coevolution.fake_runner import C, F, FakeRunner, K

pytestmark = pytest.mark.ray

GRID = Grid("fake", "ab" * 32, {"slots": K, "slot_features": F, "context_features": C, "lines": 0, "outages": 0})


@pytest.fixture(scope="module", autouse=True)
def cluster():
    here = str(Path(__file__).parents[2])
    ray.init(
        address="local", num_cpus=4, include_dashboard=False, object_store_memory=100 << 20, log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": here}},
    )  # fmt: skip
    yield
    ray.shutdown()


def settings(**sections: dict) -> RunSettings:
    base = {
        "refine": {"refiner": "off"},
        "policy": {"hidden": 16, "heads": 2, "layers": 1},
        "learner": {"batch": 16, "policy_delay": 0, "lr": 3e-3},
        "replay": {
            "capacity": 600,
            "refined_capacity": 16,
            "warmup": 32,
            "shard_rows": 64,
            "updates_per_decision": 0.5,
        },
        "rollout": {"workers": 2, "weights_every_s": 0.05},
        "resources": {"worker_cpu": 0.2, "replay_cpu": 0.1},
    }
    return RunSettings.model_validate({k: base.get(k, {}) | sections.get(k, {}) for k in base | sections})


def build(folder: Path, s: RunSettings, start: int = 1) -> ACE:
    for part in ("replay", "checkpoints", "metrics"):
        (folder / part).mkdir(exist_ok=True, parents=True)
    replay = start_replay(folder / "replay", s, GRID.identity)
    return ACE(ACEConfig.from_settings(ACE, s, grid=GRID, replay=replay, runner=FakeRunner, folder=folder, start=start))


def end(algorithm: ACE) -> None:
    algorithm.stop()
    ray.kill(algorithm.replay)


def train_until(algorithm: ACE, decisions: int, seconds: float = 60) -> dict:
    deadline = time.monotonic() + seconds
    result: dict = {}
    while algorithm.limits["decisions"] < decisions:
        assert time.monotonic() < deadline, algorithm.limits
        result = algorithm.train()
    return result


def test_two_workers_feed_one_learner_and_get_its_policy_back(tmp_path):
    algorithm = build(tmp_path, settings())
    try:
        result = train_until(algorithm, 400)
        stats = ray.get(algorithm.replay.stats.remote())
        assert algorithm.updates > 50
        # The limiter's band: updates follow decisions.
        assert abs(algorithm.updates - 0.5 * (stats["decisions"] - 32)) <= 64
        assert np.isfinite(result["learners"]["default_policy"]["q_loss"])
        assert algorithm.episodes >= 50 and len(algorithm.recent_episodes) == 50
        rows = ray.get(algorithm.replay.sample.remote(256))[0]
        assert len(set(rows["policy_version"].tolist())) > 2, "newer policies reached the workers"
        assert 0 < np.mean(algorithm.recent_staleness) < 200
        assert not list(Path.home().glob("ray_results/*")) or Path(algorithm.logdir) == tmp_path / "metrics"
    finally:
        end(algorithm)


def test_a_resumed_run_continues_counters_optimiser_policy_and_ids(tmp_path):
    algorithm = build(tmp_path, settings())
    try:
        train_until(algorithm, 200)
        saved = algorithm.write_checkpoint(tmp_path / "checkpoints", {"seconds": 12.5})
        before = learner_state.module_state(algorithm.learner_group)
        decisions = saved.state()["replay"]["decisions"]
        network, card = policy_files.load(saved.path)
        assert card.version == saved.updates == algorithm.updates and card.catalogue_hash == GRID.catalogue
        first_id = ray.get(algorithm.replay.reserve.remote(1))
    finally:
        end(algorithm)
    again = build(tmp_path, settings(), start=2)
    try:
        assert again.read_checkpoint(saved)["seconds"] == 12.5
        after = learner_state.module_state(again.learner_group)
        for name in before:
            np.testing.assert_array_equal(before[name], after[name], err_msg=name)
        assert again.updates == saved.updates and again.episodes == algorithm.episodes
        stats = ray.get(again.replay.stats.remote())
        assert stats["decisions"] >= decisions and stats["updates"] == saved.updates
        assert ray.get(again.replay.reserve.remote(1)) >= first_id - 24 * 8, "ids go on where sealed rows ended"
        train_until(again, stats["decisions"] + 100)
        assert again.updates > saved.updates
    finally:
        end(again)


def test_a_worker_that_always_fails_ends_the_run_with_its_error(tmp_path):
    (tmp_path / "fail").write_text("")
    algorithm = build(tmp_path, settings(rollout={"workers": 1, "weights_every_s": 0.05, "stalled_s": 3.0}))
    try:
        with pytest.raises(WorkerError, match="the fake grid is broken"):
            for _ in range(60):
                algorithm.train()
    finally:
        end(algorithm)


def test_a_killed_worker_is_replaced_and_gets_the_policy(tmp_path):
    algorithm = build(tmp_path, settings())
    try:
        train_until(algorithm, 100)
        actors = algorithm.env_runner_group._worker_manager.actors()
        ray.kill(actors[1], no_restart=False)
        train_until(algorithm, algorithm.limits["decisions"] + 200)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            algorithm.train()
            rows = ray.get(algorithm.replay.sample.remote(64))[0]
            if algorithm.env_runner_group.num_healthy_remote_env_runners() == 2:
                break
        assert algorithm.env_runner_group.num_healthy_remote_env_runners() == 2
        assert rows["policy_version"].min() >= 0
    finally:
        end(algorithm)


def test_checkpoints_are_pruned_but_the_greedy_start_stays(tmp_path):
    algorithm = build(tmp_path, settings(checkpoint={"keep": 1}))
    try:
        folder = tmp_path / "checkpoints"
        algorithm.write_checkpoint(folder, {})
        for decisions in (100, 150, 200):
            train_until(algorithm, decisions)
            algorithm.write_checkpoint(folder, {})
        again = algorithm.write_checkpoint(folder, {"seconds": 1.0})  # no update since: replaces the counters
        assert [c.updates for c in checkpoint.find(folder)] == [0, algorithm.updates]
        assert again.state()["seconds"] == 1.0
        assert not list(folder.glob(".unfinished*"))
    finally:
        end(algorithm)
