"""What this machine, or this process's control group where that is less, still has to give: memory and CPUs.

In a container the host's figures are not the container's. Both versions of control groups are read, from the process's
own group up to the root, since any of them may hold the limit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")
_UNLIMITED = 1 << 60  # version 1 writes a number near 2**63 where there is no limit


def available_memory(root: Path = ROOT) -> int | None:
    """Bytes that this process may still take; None where the system does not say.

    Args:
        root: where `proc` and `sys` lie.
    """
    found = [value for value in (_machine(root), *_group_memory(root)) if value is not None]
    return max(0, min(found)) if found else None


def usable_cpus(root: Path = ROOT) -> float:
    """CPUs that this process may use: its affinity, or its control group's quota where that is less."""
    return min(float(len(os.sched_getaffinity(0))), *_quotas(root), float("inf"))


def _machine(root: Path) -> int | None:
    try:
        rows = (line.split() for line in (root / "proc/meminfo").read_text().splitlines())
        return next(int(row[1]) * 1024 for row in rows if row and row[0] == "MemAvailable:")
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of the process's group and those above it; `controller` '' is version 2."""
    base = root / "sys/fs/cgroup" / controller
    own = ""
    try:
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, names, path = line.split(":", 2)
            if (not controller and not names) or controller in names.split(","):
                own = path.strip("/")
    except (OSError, ValueError):
        pass
    folder = base / own
    while folder != base:
        yield folder
        folder = folder.parent
    yield base


def _group_memory(root: Path) -> Iterator[int | None]:
    for folder in _groups(root, ""):
        yield _left(folder, "memory.max", "memory.current", "inactive_file")
    for folder in _groups(root, "memory"):
        yield _left(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _left(folder: Path, limit: str, usage: str, reclaimable: str) -> int | None:
    """Limit less use; file cache that nothing uses does not count as used."""
    try:
        most = int((folder / limit).read_text())  # version 2 writes 'max' where there is none
        used = int((folder / usage).read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return None
    return None if most >= _UNLIMITED else most - used + int(stat.get(reclaimable, 0))


def _quotas(root: Path) -> Iterator[float]:
    for folder in _groups(root, ""):
        try:
            quota, period = (folder / "cpu.max").read_text().split()
            yield int(quota) / int(period)
        except (OSError, ValueError):
            continue
    for folder in _groups(root, "cpu"):
        try:
            share = int((folder / "cpu.cfs_quota_us").read_text())
            if share > 0:
                yield share / int((folder / "cpu.cfs_period_us").read_text())
        except (OSError, ValueError):
            continue
