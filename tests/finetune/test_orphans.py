"""Worker processes do not outlive a parent that was killed."""

import signal
import subprocess
import sys

import psutil
import pytest

pytestmark = pytest.mark.unit

PARENT = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from ace_ray.finetune.orphans import end_with_parent

def process(seconds):
    time.sleep(seconds)
    return os.getpid()

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context, initializer=end_with_parent) as pool:
        print(*pool.map(process, (1, 1)), flush=True)
        pool.submit(process, 600)  # one is busy, the other waits
        time.sleep(600)
"""


def test_workers_end_with_a_killed_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = {psutil.Process(int(pid)) for pid in parent.stdout.readline().split()}
    assert workers and all(worker.is_running() for worker in workers)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=20)
    for worker in alive:
        worker.kill()
    assert not alive
