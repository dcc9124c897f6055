"""The loop of a run: steps, progress, metrics, checkpoints, budget, signals."""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from ace_ray.coevolution.algorithm import ACE
from ace_ray.coevolution.refinement import Refinement
from ace_ray.coevolution.remote import ask
from ace_ray.coevolution.run_folder import RunFolder
from ace_ray.coevolution.signals import StopSignals
from ace_ray.config.run import RunSettings
from ace_ray.monitoring.metrics import Recorder
from ace_ray.monitoring.progress import EventLog, Progress, progress_line

log = logging.getLogger(__name__)

CHECK_SECONDS = 3.0
REPORT_SECONDS = 10.0


class TrainingLoop:
    """Drives an `ACE` until its budget is spent or a signal comes.

    Args:
        settings: Of the run.
        folder: Of the run.
        algorithm: Built and, on resume, continued.
        refinement: The refining side, started.
        counters: From the checkpoint of a resumed run; {} for a new one.
        clock: Seconds; injected by tests.
    """

    def __init__(
        self,
        settings: RunSettings,
        folder: RunFolder,
        algorithm: ACE,
        refinement: Refinement,
        counters: dict[str, Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self.folder = folder
        self.algorithm = algorithm
        self.refinement = refinement
        self._clock = clock
        self._spent = float(counters.get("seconds", 0.0))  # training time of earlier starts
        self._began = clock()
        self._saved = clock()
        self._checked = clock()
        self._reported = (clock(), int(algorithm.limits["decisions"]))
        self._recorder = Recorder(str(folder.about["name"]))
        self._events = EventLog(folder.metrics)
        self._learner: dict[str, float] = {}
        self._transmission: dict[str, float] = {}

    @property
    def seconds(self) -> float:
        """Training time over all starts of the run."""
        return self._spent + self._clock() - self._began

    def run(self, signals: StopSignals) -> int:
        """Trains; returns 0 at the end of the budget, 128 + signal after a signal. Always ends with a checkpoint."""
        signals.deferred = True
        try:
            while signals.signum is None and not self._budget_spent():
                self._learner |= _numbers(self.algorithm.train())
                if self._clock() - self._checked >= CHECK_SECONDS:
                    self._checked = self._clock()
                    self.refinement.check(ask(self.algorithm.replay, "stats"))
                if self._clock() - self._reported[0] >= REPORT_SECONDS:
                    self.report()
                if self._clock() - self._saved >= self.settings.checkpoint.every_s:
                    self.checkpoint()
            self.checkpoint()
            if signals.signum is not None:
                self.folder.set(status="interrupted")  # before the slow part, which a killed job does not come to
            self.report()
            if told := self.algorithm.unplayable.summary():
                log.warning("%s", told)
        finally:
            signals.deferred = False
        return 0 if signals.signum is None else 128 + signals.signum

    def checkpoint(self) -> None:
        """Seals the shards and writes a checkpoint."""
        done = self.algorithm.write_checkpoint(
            self.folder.checkpoints, {"seconds": self.seconds, **self.refinement.counters}
        )
        self._saved = self._clock()
        self.folder.set(updates=done.updates, decisions=int(self.algorithm.limits["decisions"]), seconds=self.seconds)
        log.info("checkpoint %s", done.path.name)
        if found := self.algorithm.transmission():
            self.folder.set(transmission=asdict(found))
            self._transmission = {"ace_transmission_share": found.share, "ace_transmission_gap": found.gap}
            log.info("%s", found)

    def report(self) -> None:
        """One progress line, and the same numbers to TensorBoard and Ray's metrics."""
        stats = ask(self.algorithm.replay, "stats")
        now = self._progress(stats)
        self._reported = (self._clock(), now.decisions)
        log.info("%s", progress_line(now))
        values = self._metrics(now, stats)
        self._recorder.report(values)
        for role, version in now.adapters.items():
            self._recorder.report({"ace_adapter_version": version}, role=role)
        if self.refinement.finetuning is not None:
            for outcome, count in self.refinement.finetuning.outcomes.items():
                self._recorder.report({"ace_finetunings": count}, outcome=outcome)
        learner = {f"learner/{name}": value for name, value in self._learner.items()}
        self._events.write(now.decisions, {**{k.removeprefix("ace_"): v for k, v in values.items()}, **learner})

    def close(self, in_order: bool) -> None:
        """Ends the processes of the run, whatever happened.

        Args:
            in_order: The budget is spent; False after a signal or an error.
        """
        try:
            self.refinement.stop(in_order)
            ask(self.algorithm.replay, "seal")
        finally:
            self._events.close()
            self.algorithm.stop()

    def _budget_spent(self) -> bool:
        budget = self.settings.budget
        if budget.minutes is not None and self.seconds >= 60.0 * budget.minutes:
            return True
        return budget.decisions is not None and self.algorithm.limits["decisions"] >= budget.decisions

    def _progress(self, stats: dict[str, Any]) -> Progress:
        algorithm, budget = self.algorithm, self.settings.budget
        when, before = self._reported
        # Hard starts begin late in a scenario: they say nothing of the share that a whole episode survives.
        survival = [e["survival"] for e in algorithm.recent_episodes if not e.get("hard_start")]
        stale = algorithm.recent_staleness
        refinement = stats["refinement"]
        return Progress(
            seconds=self.seconds,
            decisions=stats["decisions"],
            decisions_per_s=(stats["decisions"] - before) / max(1e-9, self._clock() - when),
            episodes=algorithm.episodes,
            given_up=algorithm.unplayable.counts.total(),
            updates=algorithm.updates,
            staleness=sum(stale) / len(stale) if stale else 0.0,
            survival=sum(survival) / len(survival) if survival else None,
            budget_s=None if budget.minutes is None else 60.0 * budget.minutes,
            budget_decisions=budget.decisions,
            asked=refinement["asked"],
            salvageable=refinement["salvageable"],
            accepted=refinement["accepted"],
            refined=stats["table"]["refined"],
            pending=sum(stats["queue"].values()),
            edits=stats["edits"],
            adapters=self.refinement.adapters,
        )

    def _metrics(self, now: Progress, stats: dict[str, Any]) -> dict[str, float]:
        refinement = stats["refinement"]
        values = {
            "ace_decisions": now.decisions,
            "ace_decisions_per_second": now.decisions_per_s,
            "ace_episodes": now.episodes,
            "ace_policy_staleness": now.staleness,
            "ace_updates": now.updates,
            "ace_updates_per_decision": now.updates / max(1, now.decisions),
            "ace_replay_rows": stats["table"]["transitions"],
            "ace_refined_rows": now.refined,
            "ace_shard_megabytes_per_1000_decisions": stats["mb_per_1000_decisions"],
            "ace_refinements_pending": now.pending,
            "ace_refinements_asked": now.asked,
            "ace_refinements_salvageable": now.salvageable,
            "ace_refinements_accepted": now.accepted,
            "ace_refinements_rejected": refinement["rejected"],
            "ace_refinement_rounds": refinement["rounds"],
            "ace_critic_edits": now.edits,
        }
        if now.survival is not None:
            values["ace_survival"] = now.survival
        names = {"q_loss": "ace_q_loss", "policy_loss": "ace_policy_loss", "kl_to_prior": "ace_policy_kl"}
        values |= self._transmission
        values |= {names[name]: value for name, value in self._learner.items() if name in names}
        return {name: float(value) for name, value in values.items()}


def _numbers(result: dict[str, Any]) -> dict[str, float]:
    """The learner's and the replay's numbers of one training iteration; {} for one without an update."""
    found = {**result.get("learners", {}).get("default_policy", {}), **result.get("replay", {})}
    numbers = {name: float(value) for name, value in found.items() if isinstance(value, int | float | np.number)}
    return {name: value for name, value in numbers.items() if np.isfinite(value)}
