"""Metrics as they leave the cluster: what a process sets is read back at Ray's metrics endpoint."""

import re
import time
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from ace_ray.monitoring import reference
from ace_ray.monitoring.metrics import METRICS, REPLICA_METRICS, Recorder


@pytest.mark.unit
def test_the_names_that_dashboards_rest_on_exist() -> None:
    wanted = {
        "ace_decisions_per_second", "ace_llm_requests_in_flight", "ace_llm_mean_batch", "ace_refinements_asked",
        "ace_refinements_salvageable", "ace_refinements_accepted", "ace_policy_staleness", "ace_adapter_version",
    }  # fmt: skip
    every = {**METRICS, **REPLICA_METRICS}
    assert wanted <= every.keys()
    assert all(re.fullmatch(r"ace(_[a-z0-9]+)+", name) for name in every)
    assert all(metric.description.endswith(".") for metric in every.values())


@pytest.mark.unit
def test_the_replicas_own_metrics_are_listed_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    from llm_service import metrics

    made: dict[str, tuple[str, set[str]]] = {}

    def noting(kind: str) -> Callable[..., None]:
        return lambda name, description, tag_keys: made.update({name: (kind, set(tag_keys))})

    monkeypatch.setattr(metrics, "Gauge", noting("gauge"))
    monkeypatch.setattr(metrics, "Counter", noting("counter"))
    metrics.ReplicaMetrics("smoke")
    assert made == {name: (metric.kind, {"run", *metric.tags}) for name, metric in REPLICA_METRICS.items()}


@pytest.mark.unit
def test_the_page_of_metrics_is_what_the_code_says() -> None:
    assert reference.PAGE.read_text(encoding="utf-8") == reference.render(), "docs/metrics.md is stale: run `make docs`"


@pytest.mark.unit
def test_a_misnamed_metric_or_tag_is_an_error() -> None:
    recorder = Recorder("run")
    with pytest.raises(KeyError):
        recorder.report({"ace_decision": 1})
    with pytest.raises(ValueError, match="role"):
        recorder.report({"ace_adapter_version": 1})
    with pytest.raises(ValueError, match="tags"):
        recorder.report({"ace_decisions": 1}, role="actor")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A small Ray of our own; yields the address of its metrics."""
    import ray

    ray.init(
        address="local",
        num_cpus=1,
        include_dashboard=False,
        object_store_memory=80 * 2**20,
        log_to_driver=False,
        _system_config={"metrics_report_interval_ms": 500},
    )
    (node,) = ray.nodes()
    yield f"http://127.0.0.1:{node['MetricsExportPort']}/metrics"
    ray.shutdown()


def read(endpoint: str) -> dict[str, tuple[str, float]]:
    """Our own samples: name -> (labels, value)."""
    with urllib.request.urlopen(endpoint, timeout=10) as reply:
        text = reply.read().decode()
    found = re.findall(r"^ray_(ace_\w+)\{(.*)\} (\S+)$", text, flags=re.MULTILINE)
    return {name: (labels, float(value)) for name, labels, value in found}


@pytest.mark.ray
def test_what_an_actor_sets_is_read_at_the_endpoint(endpoint: str) -> None:
    import ray

    @ray.remote(num_cpus=0)
    class Driver:
        def __init__(self) -> None:
            self.recorder = Recorder("smoke")

        def report(self) -> None:
            plain = {name: i + 2.0 for i, (name, metric) in enumerate(METRICS.items()) if not metric.tags}
            counters = {name: 1.0 for name in plain if METRICS[name].kind == "counter"}
            self.recorder.report(counters)
            self.recorder.report(plain)  # counters are running totals: brought up to, not added
            self.recorder.report({"ace_critic_edits": 0.0})  # a replica that was replaced begins anew
            self.recorder.report({"ace_critic_edits": 5.0})
            self.recorder.report({"ace_adapter_version": 3}, role="actor")
            self.recorder.report({"ace_finetunings": 1}, outcome="accepted")

    driver = Driver.remote()
    ray.get(driver.report.remote())
    wanted = {name + ("_total" if metric.kind == "counter" else "") for name, metric in METRICS.items()}
    found: dict[str, tuple[str, float]] = {}
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and wanted - found.keys():
        time.sleep(0.5)
        found = read(endpoint)
    assert wanted <= found.keys()
    for i, (name, metric) in enumerate(METRICS.items()):
        labels, value = found[name + ("_total" if metric.kind == "counter" else "")]
        assert 'run="smoke"' in labels
        if name == "ace_critic_edits":
            assert value == i + 2.0 + 5.0
        elif not metric.tags:
            assert value == i + 2.0, name
    labels, value = found["ace_adapter_version"]
    assert 'role="actor"' in labels and value == 3
