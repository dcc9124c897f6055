"""A head for tests: own folder, own ports, own home with its own token."""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from ace_ray.cluster import head

REPO = Path(__file__).resolve().parents[2]


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind((head.LOOPBACK, 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@dataclass(frozen=True)
class Site:
    """A head, the home folder whose token it was started with, and a home without one."""

    head: head.Head
    home: Path
    stranger: Path

    def environment(self, home: Path, mode: str) -> dict[str, str]:
        hidden = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS")
        return {k: v for k, v in os.environ.items() if k not in hidden} | {"HOME": str(home), "RAY_AUTH_MODE": mode}


@contextmanager
def open_site(home: Path, stranger: Path) -> Iterator[Site]:
    """Start a head of two CPUs for the length of a block."""
    ports = dict(zip(("port", "dashboard_port", "metrics_port"), free_ports(3), strict=True))
    with tempfile.TemporaryDirectory(prefix="ace-h-", dir="/tmp") as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        for variable in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS"):
            patch.delenv(variable, raising=False)
        temp_dir = Path(folder)
        started = head.start(temp_dir, num_cpus=2, object_store_mb=200, **ports)
        try:
            yield Site(started, home, stranger)
        finally:
            head.stop(temp_dir)
            assert not head.is_running(temp_dir)
