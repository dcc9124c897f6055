"""Logging of the driver and of `ace`: short lines on stderr, and everything in the run's own file."""

import logging
import sys
from pathlib import Path

_NAME = "ace"
_NOISY = ("ray", "vllm", "httpx", "httpcore", "urllib3", "asyncio", "matplotlib", "numba", "filelock")


def set_up_logging(verbose: bool = False) -> None:
    """Send the log to stderr: our own rooms from INFO (DEBUG if `verbose`), others from WARNING."""
    handler = logging.StreamHandler(sys.stderr)
    handler.set_name(_NAME)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    root = logging.getLogger()
    for old in [each for each in root.handlers if each.get_name() == _NAME]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    for room in ("ace_ray", "llm_service", "cluster"):
        logging.getLogger(room).setLevel(logging.DEBUG if verbose else logging.INFO)
    for other in _NOISY:
        logging.getLogger(other).setLevel(logging.WARNING)


def log_to_file(path: Path) -> logging.Handler:
    """Also write the log to `path`, appending; returns the handler, to be closed with the run."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    return handler
