"""The mean number of requests in a batch, from vLLM's scheduler."""

import threading
from collections import deque
from typing import Any


class BatchMeter:
    """Mean batch over the last `window` engine steps that had work."""

    def __init__(self, window: int = 1000) -> None:
        self._sizes: deque[int] = deque(maxlen=window)
        self._lock = threading.Lock()

    def mean(self) -> float:
        """0 before the first step."""
        with self._lock:
            return sum(self._sizes) / len(self._sizes) if self._sizes else 0.0

    def count(self, running: int) -> None:
        """Note one step with `running` requests."""
        if running > 0:
            with self._lock:
                self._sizes.append(running)

    def logger(self, vllm_config: Any, engine_index: int = 0) -> Any:
        """A stat logger as vLLM wants it."""
        from vllm.v1.metrics.loggers import StatLoggerBase

        count = self.count

        class _Logger(StatLoggerBase):
            def __init__(self) -> None:
                pass

            def record(
                self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0
            ) -> None:
                if scheduler_stats is not None:
                    count(scheduler_stats.num_running_reqs)

            def log_engine_initialized(self) -> None:
                pass

        return _Logger()
