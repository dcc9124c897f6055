"""The labeller of a worker process: made once when the process starts, used by every job."""

from __future__ import annotations

import os
from typing import Any

from ace_ray.lab.embedded.labels import Labeller, LabelPlan
from llm_service.orphans import end_with_parent

_labeller: Labeller | None = None


def start(plan: LabelPlan) -> None:
    """Initializer of the process: ends with its parent, and leaves the others the first turn."""
    global _labeller
    end_with_parent()
    os.nice(5)
    _labeller = Labeller(plan)


def labeller() -> Labeller:
    """The labeller of this process; raises RuntimeError where `start` was not called."""
    if _labeller is None:
        raise RuntimeError("the process was not started by label_worker.start")
    return _labeller


def meta() -> dict[str, Any]:
    """`Labeller.meta`, as a job."""
    return labeller().meta()
