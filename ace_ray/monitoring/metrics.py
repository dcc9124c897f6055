"""Every metric that a run shows at Ray's metrics endpoint: one table of names, and a recorder that sets them.

Ray prefixes `ray_` to the names and, with `ray start --head`, serves them in Prometheus' text format on every node
(`ace cluster start` prints the address). A counter's exported name ends in `_total`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Metric:
    """One metric: what kind it is, what it means, and the tags that it carries besides `run`."""

    kind: Literal["gauge", "counter"]
    description: str
    tags: tuple[str, ...] = ()


METRICS: dict[str, Metric] = {
    # rollout
    "ace_decisions": Metric("counter", "Decisions collected by the rollout workers."),
    "ace_decisions_per_second": Metric("gauge", "Decisions a second over the last reporting interval."),
    "ace_episodes": Metric("counter", "Episodes finished by the rollout workers."),
    "ace_survival": Metric("gauge", "Mean share of the steps survived over the latest training episodes, 0 to 1."),
    "ace_policy_staleness": Metric("gauge", "Learner updates by which the policy of the latest decisions was behind."),
    # learner and replay
    "ace_updates": Metric("counter", "Learner updates."),
    "ace_updates_per_decision": Metric("gauge", "Learner updates for one stored decision, since the start."),
    "ace_q_loss": Metric("gauge", "Mean Q loss (eq. 2) of the latest updates."),
    "ace_policy_loss": Metric("gauge", "Mean policy loss (eq. 10) of the latest updates."),
    "ace_policy_kl": Metric("gauge", "Mean KL of the policy to the slot score's softmax in nats."),
    "ace_transmission_share": Metric(
        "gauge", "Share of refined states in which Q ranks the refined action above the played one; 0.5 is chance."
    ),
    "ace_transmission_gap": Metric("gauge", "Mean of Q(refined) - Q(played) over refined states."),
    "ace_replay_rows": Metric("gauge", "Transitions in D_RL."),
    "ace_refined_rows": Metric("gauge", "Transitions in the refined ring D_LLM."),
    "ace_shard_megabytes_per_1000_decisions": Metric("gauge", "Shards written for 1,000 decisions, in MB."),
    # refinement
    "ace_refinements_pending": Metric("gauge", "Decisions waiting to be thought over."),
    "ace_refinements_asked": Metric("counter", "Decisions for which a proposal was asked."),
    "ace_refinements_salvageable": Metric("counter", "Decisions that a replayed candidate could save."),
    "ace_refinements_accepted": Metric("counter", "Refinements that the replay confirmed better."),
    "ace_refinements_rejected": Metric("counter", "Refinements given up after the last round."),
    "ace_refinement_rounds": Metric("counter", "Rounds of refinement, the first ones included."),
    "ace_critic_edits": Metric("counter", "Rewards edited by the critic."),
    "ace_adapter_version": Metric(
        "gauge", "Version of the adapter published for a role; 0: the base model.", ("role",)
    ),
    "ace_finetunings": Metric("counter", "Finished fine-tunings by the gate's decision.", ("outcome",)),
}

# Set by the model replicas themselves (llm_service/metrics.py), here for the page and for dashboards.
REPLICA_METRICS: dict[str, Metric] = {
    "ace_llm_requests_in_flight": Metric("gauge", "Requests inside the replica."),
    "ace_llm_mean_batch": Metric("gauge", "Mean number of requests that an engine step ran together."),
    "ace_llm_adapter_version": Metric(
        "gauge", "Latest version of a role's adapter that the replica served.", ("role",)
    ),
    "ace_llm_requests": Metric("counter", "Finished requests; outcome is ok or the name of the error.", ("outcome",)),
}


class Recorder:
    """Sets the metrics of one run, from whichever process holds it; Ray must be initialised there.

    Counters are given as running totals, which is what a run keeps anyway; the recorder adds what has come since. A
    total that falls (a replica that was replaced counts from 0 again) is counted on from there.

    Args:
        run: Name of the run; a tag of every metric, so that runs on one cluster stay apart.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._exported: dict[str, Any] = {}
        self._totals: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}

    def report(self, values: Mapping[str, float], **tags: str) -> None:
        """Set gauges to `values`, and bring counters up to them.

        Args:
            values: By name as in `METRICS`.
            tags: The metrics' own tags, such as `role='actor'`.

        Raises:
            KeyError: A name that is not in `METRICS`.
            ValueError: Tags other than the metric's.
        """
        for name, value in values.items():
            metric = METRICS[name]
            if set(tags) != set(metric.tags):
                raise ValueError(f"{name} carries the tags {metric.tags}, not {tuple(tags)}")
            exported = self._exported.setdefault(name, None) or self._export(name, metric)
            labels = {"run": self._run, **tags}
            if metric.kind == "gauge":
                exported.set(float(value), tags=labels)
                continue
            key = (name, tuple(sorted(tags.items())))
            added = value - self._totals.get(key, 0.0)
            if added > 0:
                exported.inc(float(added), tags=labels)
            self._totals[key] = value

    def _export(self, name: str, metric: Metric) -> Any:
        from ray.util import metrics  # Ray takes a second to import, and names are wanted without it

        kind = metrics.Gauge if metric.kind == "gauge" else metrics.Counter
        self._exported[name] = kind(name, description=metric.description, tag_keys=("run", *metric.tags))
        return self._exported[name]
