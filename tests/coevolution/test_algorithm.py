"""ACE on a fake decision env with real Ray, real replay actor and shards, real RLlib runners and learner."""

import time
from pathlib import Path

import numpy as np
import pytest
import ray

from ace_ray.coevolution import checkpoint
from ace_ray.coevolution.algorithm import ACE
from ace_ray.coevolution.config import ACEConfig, Grid
from ace_ray.coevolution.remote import ask, get, own_error
from ace_ray.config.errors import ConfigError, DataError, GridMismatchError, WorkerError
from ace_ray.config.run import RunSettings
from ace_ray.grid.domain import GridDomain
from ace_ray.learner import state as learner_state
from ace_ray.policy import checkpoint as policy_files
from ace_ray.replay.actor import start_replay
from ace_ray.replay.shards import ShardLog
from llm_service.errors import ModelError
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
    replay = start_replay(folder / "replay", s, GRID.identity, GridDomain())
    return ACE(ACEConfig.from_settings(ACE, s, grid=GRID, replay=replay, runner=FakeRunner, folder=folder, start=start))


def end(algorithm: ACE) -> None:
    algorithm.stop()
    ray.kill(algorithm.replay)


def train_until(algorithm: ACE, decisions: int, seconds: float = 180) -> dict:
    deadline = time.monotonic() + seconds
    result: dict = {}
    while algorithm.limits["decisions"] < decisions:
        assert time.monotonic() < deadline, algorithm.limits
        result = algorithm.train()
    return result


@pytest.mark.parametrize("kind", [DataError, ModelError])
def test_an_error_of_ours_comes_out_of_a_task_or_a_constructor_as_it_was_raised(kind: type[Exception]) -> None:
    class Torn:
        def __init__(self) -> None:
            raise kind("torn", "copy it again")

        def ready(self) -> None: ...

    with pytest.raises(kind, match="^torn\n  remedy: copy it again$"):
        get(ray.remote(num_cpus=0)(lambda: Torn()).remote())
    with pytest.raises(ray.exceptions.RayActorError) as died:
        get(ray.remote(num_cpus=0)(Torn).remote().ready.remote())
    assert type(own_error(died.value)) is kind


def test_two_workers_feed_one_learner_and_a_killed_one_is_replaced(tmp_path):
    algorithm = build(tmp_path, settings())
    try:
        result = train_until(algorithm, 300)
        stats = ask(algorithm.replay, "stats")
        assert algorithm.updates > 50
        # The limiter's band: updates follow decisions.
        assert abs(algorithm.updates - 0.5 * (stats["decisions"] - 32)) <= 64
        assert np.isfinite(result["learners"]["default_policy"]["q_loss"])
        assert algorithm.episodes >= 1 and len(algorithm.recent_episodes) == min(50, algorithm.episodes)
        rows = ask(algorithm.replay, "sample", 256)[0]
        assert len(set(rows["policy_version"].tolist())) > 2, "newer policies reached the workers"
        assert rows["policy_version"].min() >= 0 and np.mean(algorithm.recent_staleness) > 0
        assert algorithm.logdir == str(tmp_path / "metrics"), "nothing is written outside of the run folder"

        ray.kill(algorithm.env_runner_group._worker_manager.actors()[1], no_restart=False)
        deadline = time.monotonic() + 180
        group = algorithm.env_runner_group
        while group.num_remote_worker_restarts() < 1 or group.num_healthy_remote_env_runners() < 2:
            assert time.monotonic() < deadline
            algorithm.train()
        train_until(algorithm, algorithm.limits["decisions"] + 100)
        assert ask(algorithm.replay, "sample", 512)[0]["policy_version"].min() >= 0, (
            "it got the policy before it played"
        )
    finally:
        end(algorithm)


def test_a_replay_actor_that_dies_comes_back_with_what_was_sealed(tmp_path):
    algorithm = build(tmp_path, settings(rollout={"workers": 1, "weights_every_s": 0.05}))
    try:
        train_until(algorithm, 120)
        ask(algorithm.replay, "seal")
        sealed, updates = ask(algorithm.replay, "limits")["decisions"], algorithm.updates
        ray.kill(algorithm.replay, no_restart=False)
        for _ in range(2):  # the first step may have begun on the old one
            algorithm.train()
        assert ask(algorithm.replay, "limits")["updates"] >= updates, "the learner's count is the right one"
        train_until(algorithm, sealed + 100)
        ids = ShardLog(tmp_path / "replay").read("transition")["id"].to_pylist()
        assert len(ids) >= sealed and len(set(ids)) == len(ids)
        assert algorithm.updates > updates
    finally:
        end(algorithm)


def test_a_resumed_run_continues_counters_optimiser_policy_and_ids_with_a_remote_learner(tmp_path):
    one = settings(rollout={"workers": 1, "weights_every_s": 0.05}, checkpoint={"keep": 1})
    folder = tmp_path / "checkpoints"
    algorithm = build(tmp_path, one)
    try:
        algorithm.write_checkpoint(folder, {})
        for decisions in (80, 120, 160):
            train_until(algorithm, decisions)
            algorithm.write_checkpoint(folder, {})
        saved = algorithm.write_checkpoint(folder, {"seconds": 12.5})  # no update since: replaces the counters
        assert [c.updates for c in checkpoint.find(folder)] == [0, algorithm.updates], "the greedy start stays"
        assert not list(folder.glob(".unfinished*"))
        before = learner_state.module_state(algorithm.learner_group)
        network, card = policy_files.load(saved.path)
        assert card.version == saved.updates == algorithm.updates and card.catalogue_hash == GRID.catalogue
        decisions = saved.state()["replay"]["decisions"]
    finally:
        end(algorithm)
    sealed = ShardLog(tmp_path / "replay").read("transition")["id"].to_pylist()
    remote = one.model_copy(update={"learner": one.learner.model_copy(update={"num_learners": 1})})
    again = build(tmp_path, remote, start=2)
    try:
        assert again.read_checkpoint(saved)["seconds"] == 12.5
        after = learner_state.module_state(again.learner_group)
        for name in before:
            np.testing.assert_array_equal(before[name], after[name], err_msg=name)
        assert again.updates == saved.updates and again.episodes == algorithm.episodes
        stats = ask(again.replay, "stats")
        assert stats["decisions"] >= decisions and stats["updates"] == saved.updates
        assert ask(again.replay, "reserve", 1) > max(sealed), "ids go on where sealed rows ended"
        train_until(again, stats["decisions"] + 60)
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


def test_what_keeps_workers_and_replay_from_starting_is_told_in_their_own_words(tmp_path):
    (tmp_path / "mismatch").write_text("")
    one = settings(rollout={"workers": 1})
    with pytest.raises(GridMismatchError, match="another catalogue on this node"):
        build(tmp_path, one)
    replay = start_replay(tmp_path / "other", settings(replay={"capacity": 20}), GRID.identity, GridDomain())
    with pytest.raises(ConfigError, match=r"replay\.capacity=20 cannot hold"):
        ask(replay, "report")
