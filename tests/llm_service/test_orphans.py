"""Worker processes do not outlive a parent that was killed."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from llm_service.settings import EngineSettings

PARENT = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from llm_service.orphans import end_with_parent

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


ASKING = """
import sys
from llm_service.client import LocalClient
from llm_service.settings import EngineSettings, ServiceSettings

if __name__ == "__main__":
    engine = EngineSettings.model_validate_json(sys.argv[1])
    with LocalClient(engine, None, ServiceSettings()) as client:
        print("started", flush=True)
        schema = {"type": "array", "items": {"enum": [1, 2]}, "minItems": 400}
        while True:
            client.ask([{"role": "user", "content": "?"}], max_tokens=400, deadline_s=60, schema=schema)
"""


@pytest.mark.unit
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


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.parametrize(("number", "working"), [(signal.SIGTERM, False), (signal.SIGKILL, True)])
def test_an_engine_ends_with_the_process_that_started_it(
    number: signal.Signals, working: bool, tiny_settings: EngineSettings, tmp_path: Path
) -> None:
    script = tmp_path / "asking.py"
    script.write_text(ASKING)
    settings = tiny_settings.model_copy(update={"log_file": str(tmp_path / "engine.log")})
    asking = psutil.Popen([sys.executable, str(script), settings.model_dump_json()], stdout=subprocess.PIPE)
    try:
        if working:
            assert asking.stdout.readline() == b"started\n"
        engines: list[psutil.Process] = []
        until = time.monotonic() + 120
        while not engines and time.monotonic() < until:  # named so as soon as it runs
            engines = [child for child in asking.children() if "EngineCore" in child.name()]
            time.sleep(0.05)
        assert engines
    finally:
        asking.send_signal(number)
        asking.wait()
    _, alive = psutil.wait_procs(engines, timeout=20)
    for engine in alive:
        engine.kill()
    assert not alive
