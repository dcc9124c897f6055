"""docs/metrics.md, made from the table of metrics: `make docs`, or `python -m ace_ray.monitoring.reference`."""

from pathlib import Path

from ace_ray.monitoring.metrics import METRICS, REPLICA_METRICS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"

_HEAD = """# Metrics

Made from the code by `make docs`; do not edit. A run, and its model replicas (`ace_llm_...`), set these through
`ray.util.metrics`; Ray serves them in Prometheus' text format on every node, named `ray_` + name, counters with
`_total` behind. Each carries the tag `run`.
The run's own go to TensorBoard too (`tensorboard --logdir RUN/metrics`).

| metric | kind | further tags | meaning |
|---|---|---|---|
"""


def render() -> str:
    """Return the whole page."""
    rows = (
        f"| `{name}` | {metric.kind} | {', '.join(metric.tags) or '-'} | {metric.description} |"
        for name, metric in {**METRICS, **REPLICA_METRICS}.items()
    )
    return _HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
