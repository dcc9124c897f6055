"""The local head: started with a token of its own, closed to everybody without it, ended alone."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from ace_ray.cluster import head
from tests.cluster.sites import Site, free_ports


@pytest.mark.ray
def test_a_token_is_made_that_only_its_owner_reads(site: Site) -> None:
    token = site.home / ".ray" / "auth_token"
    assert len(token.read_text().strip()) >= 16
    assert token.stat().st_mode & 0o077 == 0


@pytest.mark.ray
def test_the_head_says_what_it_has(site: Site) -> None:
    until = time.monotonic() + 60  # a young head has no status yet, and says so
    found, told = head.status(Path(site.head.temp_dir))
    while "No cluster status" in told and time.monotonic() < until:
        time.sleep(1)
        found, told = head.status(Path(site.head.temp_dir))
    assert found == site.head
    assert "2.0 CPU" in told


@pytest.mark.ray
def test_dashboard_and_jobs_listen_on_loopback_only(site: Site) -> None:
    addresses = [
        address.address
        for interface in psutil.net_if_addrs().values()
        for address in interface
        if address.family == socket.AF_INET and not address.address.startswith("127.")
    ]
    if not addresses:
        pytest.skip("this machine has no address but loopback")
    for outside in addresses:
        with pytest.raises(OSError), socket.create_connection((outside, site.head.dashboard_port), timeout=5):
            pass
    socket.create_connection((head.LOOPBACK, site.head.dashboard_port), timeout=5).close()


@pytest.mark.ray
def test_the_jobs_api_refuses_a_client_without_the_token(site: Site) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{site.head.dashboard}/api/jobs/", timeout=30)
    assert refused.value.code in (401, 403)
    token = (site.home / ".ray" / "auth_token").read_text().strip()
    request = urllib.request.Request(f"{site.head.dashboard}/api/jobs/", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        assert isinstance(json.loads(reply.read()), list)


CONNECT = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
print('inside', ray.cluster_resources()['CPU'])
"""


@pytest.mark.ray
@pytest.mark.parametrize("mode", ["disabled", "token"])
def test_a_driver_without_the_token_is_refused(site: Site, mode: str) -> None:
    """No token at all, and somebody else's."""
    if mode == "token":
        (site.stranger / ".ray").mkdir(exist_ok=True)
        (site.stranger / ".ray" / "auth_token").write_text("0" * 64)
    done = subprocess.run(
        [sys.executable, "-c", CONNECT, site.head.address],
        env=site.environment(site.stranger, mode), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode != 0 and "inside" not in done.stdout
    assert "Unauthenticated" in done.stderr or "uthenticat" in done.stderr, done.stderr[-2000:]


@pytest.mark.ray
def test_a_driver_with_the_token_gets_in(site: Site) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CONNECT, site.head.address],
        env=site.environment(site.home, "token"), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "inside 2.0" in done.stdout, done.stderr[-2000:]


@pytest.mark.ray
def test_a_second_head_in_the_same_folder_or_on_the_same_port_is_refused(site: Site, tmp_path: Path) -> None:
    with pytest.raises(head.HeadError, match="is running in .* already"):
        head.start(Path(site.head.temp_dir), num_cpus=1, object_store_mb=100)
    ports = dict(zip(("dashboard_port", "metrics_port"), free_ports(2), strict=True))
    with pytest.raises(head.HeadError, match=f"port {site.head.port} is taken"):
        head.start(tmp_path, num_cpus=1, object_store_mb=100, port=site.head.port, **ports)


@pytest.mark.unit
def test_stopping_and_asking_where_no_head_runs(tmp_path: Path) -> None:
    assert head.stop(tmp_path) == 0
    with pytest.raises(head.HeadError, match="no head is running in"):
        head.status(tmp_path)


@pytest.mark.unit
def test_only_processes_with_the_heads_own_mark_are_ended(tmp_path: Path) -> None:
    def sleeper(mark: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(["sleep", "60"], env={**os.environ, head.MARK: mark})

    ours, other = sleeper(str(tmp_path)), sleeper(f"{tmp_path}-other")
    try:
        assert head.is_running(tmp_path)
        assert head.stop(tmp_path) == 1
        assert ours.poll() is not None
        assert other.poll() is None
    finally:
        for process in (ours, other):
            process.kill()
            process.wait()
