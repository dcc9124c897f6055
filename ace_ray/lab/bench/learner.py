"""`ace bench learner`: updates a second of the configured networks, on made-up rows of the grid's shapes."""

import time

import numpy as np
import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from ace_ray.config.run import RunSettings
from ace_ray.grid.engine import EngineSpec
from ace_ray.learner.batch import learner_batch
from ace_ray.learner.group import configure_learner
from ace_ray.learner.module import module_spec
from ace_ray.schema import NEXT, OBSERVED, STATE_COLUMNS, StateShape

_ROWS = 512


def measure_learner(settings: RunSettings, spec: EngineSpec, seconds: float) -> list[str]:
    """Update in this process for some seconds.

    Args:
        settings: Policy, learner and its batch size are read.
        spec: Shapes of a decision.

    Returns:
        Lines to print.
    """
    torch.set_num_threads(max(1, int(settings.resources.driver_cpu)))  # as the driver of a run does
    module = module_spec(StateShape.of(spec), settings.policy, settings.learner.alpha_initial)
    local = settings.learner.model_copy(update={"num_learners": 0})
    config = configure_learner(AlgorithmConfig(), local, settings.resources, settings.seed)
    group = config.build_learner_group(rl_module_spec=module)
    rng = np.random.default_rng(settings.seed)
    rows = _rows(spec, rng)

    def update() -> None:
        drawn = rng.integers(_ROWS, size=local.batch)
        group.update(batch=learner_batch({key: column[drawn] for key, column in rows.items()}))

    update()  # the first one builds the optimisers' state
    count, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        update()
        count += 1
    took = time.perf_counter() - begun
    group.shutdown()
    return [
        f"{spec.slots} slots of {spec.slot_features} features, {spec.context_features} state features, "
        f"batch {local.batch}",
        f"{count / took:8.1f} updates a second ({1e3 * took / max(1, count):.1f} ms each)",
    ]


def _rows(spec: EngineSpec, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random rows as the replay table gives them: every slot legal, nothing terminated."""
    rows: dict[str, np.ndarray] = {}
    for prefix in ("", NEXT):
        for name in OBSERVED:
            rows[prefix + name] = rng.random((_ROWS, *STATE_COLUMNS[name].shape(spec)), dtype=np.float32)
        rows[f"{prefix}mask"] = np.ones((_ROWS, spec.slots), bool)
    rows["slot"] = rng.integers(spec.slots, size=_ROWS)
    rows["reward"] = rng.random(_ROWS)
    rows["discount"] = np.full(_ROWS, 0.98)
    rows["terminated"] = np.zeros(_ROWS, bool)
    rows["weight"] = np.ones(_ROWS)
    return rows
