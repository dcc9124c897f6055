"""Free memory and CPUs are those of the control group where it has less than the machine."""

import os
from pathlib import Path

import pytest

from llm_service.machine import available_memory, usable_cpus

pytestmark = pytest.mark.unit

GIB = 1 << 30


def system(root: Path, files: dict[str, str], own: str = "0::/\n") -> Path:
    """A file system with 16 GiB available, the process's groups, and these files under sys/fs/cgroup."""
    texts = {"proc/meminfo": "MemTotal: 33554432 kB\nMemAvailable: 16777216 kB\n", "proc/self/cgroup": own}
    for name, text in {**texts, **{f"sys/fs/cgroup/{name}": text for name, text in files.items()}}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def memory(limit: object, used: int, cache: int) -> tuple[str, str, str]:
    return f"{limit}\n", f"{used}\n", f"anon 1\ninactive_file {cache}\ntotal_inactive_file {cache}\n"


def test_without_a_limit_the_machine_is_what_counts(tmp_path):
    names = ("memory.max", "memory.current", "memory.stat")
    root = system(tmp_path, dict(zip(names, memory("max", GIB, 0), strict=True)) | {"cpu.max": "max 100000\n"})
    assert available_memory(root) == 16 * GIB
    assert usable_cpus(root) == len(os.sched_getaffinity(0))


def test_a_limit_of_version_2_counts_what_is_used_but_not_the_cache(tmp_path):
    names = ("memory.max", "memory.current", "memory.stat")
    root = system(
        tmp_path, dict(zip(names, memory(4 * GIB, 3 * GIB, GIB), strict=True)) | {"cpu.max": "50000 100000\n"}
    )
    assert available_memory(root) == 2 * GIB
    assert usable_cpus(root) == 0.5


def test_the_limit_of_a_group_above_the_own_counts_too(tmp_path):
    names = ("pod/memory.max", "pod/memory.current", "pod/memory.stat")
    files = dict(zip(names, memory(2 * GIB, GIB, 0), strict=True)) | {"pod/box/memory.max": "max\n"}
    root = system(tmp_path, files | {"pod/cpu.max": "25000 100000\n"}, own="0::/pod/box\n")
    assert available_memory(root) == GIB
    assert usable_cpus(root) == 0.25


def test_limits_of_version_1_are_read(tmp_path):
    names = ("memory/limit_in_bytes", "memory/usage_in_bytes", "memory/stat")
    texts = memory(3 * GIB, GIB, 0)
    files = {f"memory/memory.{n.split('/')[1]}": t for n, t in zip(names, texts, strict=True)}
    files |= {"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}
    root = system(tmp_path, files, own="4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n")
    assert available_memory(root) == 2 * GIB
    assert usable_cpus(root) == 0.5


def test_no_limit_of_version_1_is_a_huge_number(tmp_path):
    files = {"memory/memory.limit_in_bytes": f"{2**63 - 4096}\n", "memory/memory.usage_in_bytes": "1\n"}
    root = system(tmp_path, files | {"memory/memory.stat": "cache 0\n", "cpu/cpu.cfs_quota_us": "-1\n"})
    assert available_memory(root) == 16 * GIB
    assert usable_cpus(root) == len(os.sched_getaffinity(0))


def test_a_system_that_says_nothing_is_unknown(tmp_path):
    assert available_memory(tmp_path) is None
    assert available_memory() is None or 1 << 26 < available_memory() < 1 << 44
