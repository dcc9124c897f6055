"""A pool's workers wait for work on a queue that they hold open themselves: left alone they outlive a killed parent."""

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """In a process that multiprocessing started: end as soon as its parent has, whatever is being done here."""
    threading.Thread(target=_wait_and_end, name="end-with-parent", daemon=True).start()


def _wait_and_end() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()  # its end closes a pipe: nothing is polled
        os._exit(1)
