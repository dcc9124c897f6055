"""`ACE`: the RLlib Algorithm that ties collecting, replay, learning and weights together (docs/design.md).

    rollout runners ──rows──► replay actor ──batches──► LearnerGroup ──weights──► rollout runners

Runners store their rows in the replay actor themselves; what comes back here is a small report. One `training_step`
hands out sample requests, makes at most about a second of the updates that the limiter calls for, and publishes the
policy. RLlib's own checkpoints are pickles and are not used (`ace_ray.coevolution.checkpoint`).
"""

import logging
import time
import traceback
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.utils.metrics import LEARNER_RESULTS

from ace_ray.coevolution import checkpoint
from ace_ray.coevolution.config import ACEConfig
from ace_ray.coevolution.remote import ask, own_error
from ace_ray.coevolution.stall import StallWatch
from ace_ray.coevolution.unplayable import Unplayable
from ace_ray.config.errors import AceError, RunFolderError, WorkerError
from ace_ray.learner import state as learner_state
from ace_ray.learner.batch import learner_batch
from ace_ray.learner.transmission import Transmission, transmission
from ace_ray.policy.checkpoint import PolicyCard
from llm_service.errors import LLMServiceError

log = logging.getLogger(__name__)

SAMPLE, WEIGHTS = "sample", "weights"
STEP_SECONDS = 1.0
RECENT_EPISODES = 50
RECENT_DECISIONS = 200


class ACE(Algorithm):
    """One training run; build it with `ACEConfig.from_settings(...).build_algo()`."""

    config: ACEConfig

    @classmethod
    def get_default_config(cls) -> ACEConfig:
        """An empty configuration; `ACEConfig.from_settings` makes a usable one."""
        return ACEConfig(cls)

    def setup(self, config: ACEConfig) -> None:
        """Starts runners and learner and gives the runners their first policy (at version 0: greedy)."""
        self.updates = 0
        self.episodes = 0
        self.unplayable = Unplayable()
        self.recent_episodes: deque[dict[str, Any]] = deque(maxlen=RECENT_EPISODES)
        self.recent_staleness: deque[int] = deque(maxlen=RECENT_DECISIONS)
        self._published = (-1, 0.0)
        self._update_seconds = 0.2
        try:
            super().setup(config)
        except IndexError as error:  # what RLlib makes of runners none of which could be built
            raise self._why_no_runner() from error
        self.replay = self.config.replay
        self.limits: dict[str, Any] = ask(self.replay, "limits")
        self.watch = StallWatch(self.config.run.rollout.stalled_s)
        self.publish()

    def _why_no_runner(self) -> AceError | LLMServiceError:
        reason = "no reason known"
        for actor in self.env_runner_group._worker_manager.actors().values():
            try:
                ray.get(actor.assert_healthy.remote(), timeout=STEP_SECONDS)
            except ray.exceptions.RayActorError as error:
                if own := own_error(error):
                    return own
                reason = str(error)
            except ray.exceptions.RayError as error:
                reason = str(error)
        return WorkerError(f"no rollout worker could be built: {reason}", "see the workers' logs in /tmp/ray")

    def _setup_logdir(self) -> None:
        # RLlib would make a folder under ~/ray_results; everything of a run lies in the run's own folder.
        assert self.config.folder is not None
        self._logdir = str(self.config.folder / "metrics")

    # -- one step ---------------------------------------------------------------------------------------------------

    def training_step(self) -> None:
        """Collect, learn, publish; returns after about a second."""
        self.limits = ask(self.replay, "limits")
        if self.limits["updates"] < self.updates:
            self._replay_restarted()
        due = self.limits["updates_due"]
        self._collect(wait_s=0.0 if due else STEP_SECONDS / 2)
        if due:
            self._learn(due)
        version, when = self._published
        if version != self.updates and time.monotonic() - when >= self.config.run.rollout.weights_every_s:
            self.publish()

    def _collect(self, wait_s: float) -> None:
        if self.limits["may_collect"]:
            for _ in range(self.config.max_requests_in_flight_per_env_runner):  # RLlib drops what is beyond
                self.env_runner_group.foreach_env_runner_async(_sample, tag=SAMPLE)
        else:
            self.watch.decisions(1)  # held back on purpose: that is no stall
        fetch = self.env_runner_group.fetch_ready_async_reqs
        for worker, report in fetch(tags=SAMPLE, timeout_seconds=wait_s):
            if "fatal" in report:
                raise RunFolderError(*report["fatal"])
            if "error" in report:
                self._failed(worker, report["error"])
            else:
                self._note(report)
        for worker, error in fetch(tags=WEIGHTS):
            if error:
                self._failed(worker, error)
        self.watch.check()

    def _replay_restarted(self) -> None:
        """A restarted replay knows its sealed rows, but not how many updates were made."""
        log.warning("the replay actor was restarted: rows that were not sealed yet are lost")
        ask(self.replay, "set_updates", self.updates)
        self.limits = ask(self.replay, "limits")

    def _failed(self, worker: int, error: str) -> None:
        """A runner that raised may be in any state: it is restarted, and RLlib's probe finds it again."""
        if self.watch.error(f"rollout worker {worker}", error):
            log.warning("rollout worker %d failed and is restarted:\n%s", worker, error)
        manager = self.env_runner_group._worker_manager
        ray.kill(manager.actors()[worker], no_restart=False)
        manager.set_actor_state(worker, healthy=False)

    def _note(self, report: dict[str, Any]) -> None:
        self.watch.decisions(report["decisions"])
        if report["decisions"]:
            self.recent_staleness.extend([self.updates - report["policy_version"]] * report["decisions"])
        self.unplayable.add(report.get("given_up", ()), played=bool(report["decisions"] or report["episodes"]))
        self.episodes += len(report["episodes"])
        self.recent_episodes.extend(report["episodes"])

    def _learn(self, due: int) -> None:
        n = int(np.clip(STEP_SECONDS / self._update_seconds, 1, 32))
        batches = ask(self.replay, "sample", self.config.run.learner.batch, min(due, n))
        start = time.monotonic()
        for rows in batches:
            results = self.learner_group.update(batch=learner_batch(rows))
            self.metrics.aggregate(results, key=LEARNER_RESULTS)
            self.updates += 1
        each = (time.monotonic() - start) / len(batches)
        self._update_seconds = 0.7 * self._update_seconds + 0.3 * each
        rows = batches[-1]
        self.metrics.log_dict(
            {
                "update_seconds": each,
                "refined_share": float(rows["refined"].mean()),
                "replay_age": float((self.updates - rows["policy_version"])[rows["policy_version"] >= 0].mean())
                if (rows["policy_version"] >= 0).any()
                else 0.0,
            },
            key="replay",
            window=20,
        )

    # -- weights ----------------------------------------------------------------------------------------------------

    def publish(self, runners: list[int] | None = None) -> None:
        """Sends policy, version and proposal memory to the runners, behind what they are doing now.

        Args:
            runners: Indices; None for all of them.
        """
        state = {
            "policy": learner_state.policy_weights(self.learner_group),
            "version": self.updates,
            "memory": ask(self.replay, "memory"),
        }
        reference = ray.put(state)
        self.env_runner_group.foreach_env_runner_async(
            lambda runner: _set_state(runner, reference), tag=WEIGHTS, remote_worker_ids=runners
        )
        self._published = (self.updates, time.monotonic())

    def restore_env_runners(self, env_runner_group: EnvRunnerGroup) -> list[int]:
        """Gives restarted runners the present policy; they have no connectors to restore."""
        restored = env_runner_group.probe_unhealthy_env_runners()
        if restored:
            log.warning("rollout workers %s were restarted", restored)
            self.publish(restored)
        return restored

    def transmission(self) -> Transmission | None:
        """Whether Q has taken up what refiners found; None before they found anything."""
        pairs = ask(self.replay, "pairs")
        return transmission(learner_state.module_state(self.learner_group), self.config.run.policy, pairs)

    # -- checkpoints ------------------------------------------------------------------------------------------------

    def write_checkpoint(self, folder: Path, counters: dict[str, Any]) -> checkpoint.Checkpoint:
        """Seals the replay and writes a checkpoint.

        Args:
            folder: `<run>/checkpoints`.
            counters: What the driver wants back on resume.

        Raises:
            RunFolderError: Disk full or not writable.
            WorkerError: The replay actor is gone.
        """
        ask(self.replay, "seal")
        stats = ask(self.replay, "stats")
        memory = ask(self.replay, "memory")
        grid = self.config.grid
        assert grid is not None

        def card(updates: int) -> PolicyCard:
            return PolicyCard(
                env=grid.env,
                catalogue_hash=grid.catalogue,
                spec=grid.spec,
                settings=self.config.run.policy,
                memory=tuple(memory),
                version=updates,
                decisions=stats["decisions"],
            )

        replay = {key: stats[key] for key in ("decisions", "sources", "queue", "shards", "shard_rows")}
        state = {**counters, "episodes": self.episodes, "iteration": self.iteration, "replay": replay}
        return checkpoint.write(folder, self.learner_group, card, state, self.config.run.checkpoint.keep)

    def read_checkpoint(self, saved: checkpoint.Checkpoint) -> dict[str, Any]:
        """Continues learner and counters from a checkpoint; returns what `write_checkpoint` was given."""
        learner_state.load(self.learner_group, saved.path)
        counters = saved.state()
        self.updates = int(counters["updates"])
        self.episodes = int(counters["episodes"])
        self._iteration = int(counters["iteration"])
        ask(self.replay, "set_updates", self.updates)
        self.publish()
        return counters


def _sample(runner: EnvRunner) -> dict[str, Any]:
    """Runs in a runner. RLlib ends an actor that raises and keeps nothing of the reason, so the reason is returned."""
    try:
        return runner.sample()
    except RunFolderError as error:  # the replay could not write: no restart helps
        return {"fatal": (error.problem, error.remedy)}
    except Exception:
        return {"error": traceback.format_exc()}


def _set_state(runner: EnvRunner, state: ray.ObjectRef) -> str:
    """Runs in a runner; returns the reason when it does not take the state, '' otherwise."""
    try:
        runner.set_state(ray.get(state))
        return ""
    except Exception:
        return traceback.format_exc()
