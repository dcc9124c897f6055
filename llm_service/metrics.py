"""What a replica exports through `ray.util.metrics`; Ray's endpoint shows the names with the prefix `ray_`.

| name | kind | tags | meaning |
|---|---|---|---|
| ace_llm_requests_in_flight | gauge | run | requests inside the replica |
| ace_llm_mean_batch | gauge | run | mean requests in a batch over the last 1,000 engine steps |
| ace_llm_adapter_version | gauge | run, role | latest version served |
| ace_llm_requests | counter | run, outcome | finished requests; outcome is ok or the name of the error |
"""

from ray.util.metrics import Counter, Gauge

from llm_service.protocol import ReplicaReport


class ReplicaMetrics:
    """The metrics of one replica; make it inside the replica."""

    def __init__(self, run: str) -> None:
        self._run = {"run": run}
        self._in_flight = Gauge("ace_llm_requests_in_flight", "requests inside the replica", ("run",))
        self._batch = Gauge("ace_llm_mean_batch", "mean requests in a batch", ("run",))
        self._version = Gauge("ace_llm_adapter_version", "latest adapter version served", ("run", "role"))
        self._requests = Counter("ace_llm_requests", "finished requests by outcome", ("run", "outcome"))

    def finished(self, outcome: str) -> None:
        """Count one request."""
        self._requests.inc(tags={**self._run, "outcome": outcome})

    def update(self, report: ReplicaReport) -> None:
        """Set the gauges."""
        self._in_flight.set(report.in_flight, tags=self._run)
        self._batch.set(report.mean_batch, tags=self._run)
        for role, version in report.versions.items():
            self._version.set(version, tags={**self._run, "role": role})
