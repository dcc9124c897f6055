"""Child processes that end with their parent, however it ended: left alone they would outlive one that was killed."""

import multiprocessing
import os
import threading
from typing import Any


def end_with_parent() -> None:
    """In a process that multiprocessing started: end as soon as its parent has, whatever is being done here."""
    threading.Thread(target=_wait_and_end, name="end-with-parent", daemon=True).start()


def let_engines_end_with_parent() -> None:
    """Make every engine process that this process starts from now on end with it.

    vLLM's waits for requests on a socket and never notices. Engine processes must be spawned, not forked
    (`engine.set_environment`): there vLLM's own function is found again under its name.
    """
    from vllm.v1.engine.core import EngineCoreProc

    EngineCoreProc.run_engine_core = staticmethod(_run_engine_core)


def _run_engine_core(*args: Any, **kwargs: Any) -> None:
    """vLLM's main function of an engine process, pickled in its place; runs in that process."""
    from vllm.v1.engine.core import EngineCoreProc

    end_with_parent()
    EngineCoreProc.run_engine_core(*args, **kwargs)


def _wait_and_end() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()  # its end closes a pipe: nothing is polled
        os._exit(1)
