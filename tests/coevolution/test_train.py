"""`ace train` as a user runs it: a real grid, real processes, a real kill -9 of the driver, and a resume."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ace_ray.coevolution import checkpoint, run_folder
from ace_ray.replay.shards import ShardLog

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
SMALL = [
    "name=run", "refine.refiner=search", "refine.seed_queue=false", "evaluation.enabled=false", "checkpoint.every_s=4",
    "replay.shard_rows=16", "replay.shard_seconds=2", "budget.minutes=10", "rollout.hard_starts=1.0",
]  # fmt: skip


class Driver:
    """One `ace train` process whose output goes to a file."""

    def __init__(self, runs: Path, *arguments: str) -> None:
        self.log = runs / f"{time.monotonic_ns()}.log"
        environment = os.environ | {"ACE_RUNS": str(runs), "OMP_NUM_THREADS": "1"}
        environment.pop("RAY_ADDRESS", None)
        with self.log.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ace_ray", "train", *arguments],
                cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def until(self, done: Callable[[], bool], seconds: float = 240) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.5)


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., Driver]]:
    started: list[Driver] = []

    def start(*arguments: str) -> Driver:
        started.append(Driver(tmp_path, *arguments))
        return started[-1]

    yield start
    for driver in started:
        if driver.process.poll() is None:
            driver.process.kill()


def transitions(run: Path) -> list[int]:
    """Ids of all sealed transitions, in order of writing, as plain files tell."""
    return ShardLog(run / "replay").read("transition")["id"].to_pylist()


def test_kill_9_then_resume_then_sigterm(tmp_path, start):
    run = tmp_path / "run"
    command = ["--config", "smoke", "--resume", "auto", *SMALL]
    first = start(*command)
    # A blackout leaves decisions to think over: they must outlive the kill as well.
    first.until(lambda: len(checkpoint.find(run / "checkpoints")) >= 3)
    first.process.send_signal(signal.SIGKILL)
    first.process.wait()
    time.sleep(8)  # Ray ends what belonged to the driver
    before = transitions(run)
    log = ShardLog(run / "replay")
    sealed = {shard.file: shard.sha256 for shard in log.shards}
    asked = log.read("refinement", ["status"]).to_pylist()
    saved = checkpoint.find(run / "checkpoints")[-1]
    assert before and saved.updates > 0
    assert run_folder.read_about(run)["status"] == "died"

    torn = saved.path / "learner.safetensors"
    torn.write_bytes(torn.read_bytes()[:1000])
    set_aside, saved = saved, checkpoint.find(run / "checkpoints")[-2]
    second = start(*command)
    second.until(lambda: "continues from checkpoint" in second.log.read_text())
    assert set_aside.path.with_suffix(".torn").is_dir(), "an earlier checkpoint is taken"
    second.until(lambda: checkpoint.find(run / "checkpoints")[-1].updates > saved.updates)
    second.process.send_signal(signal.SIGTERM)
    assert second.process.wait(180) == 143, second.log.read_text()

    about = json.loads((run / "run.json").read_text())
    assert about["status"] == "interrupted" and about["starts"] == 2
    assert re.search(
        rf"continues from checkpoint {saved.path.name} \({saved.updates} updates\)", second.log.read_text()
    )
    log = ShardLog(run / "replay")
    assert not log.report.lines() and not log.verify()
    now = {shard.file: shard.sha256 for shard in log.shards}
    assert sealed.items() <= now.items(), "what was sealed is there, byte for byte"
    after = transitions(run)
    assert after[: len(before)] == before and len(set(after)) == len(after)
    assert min(after[len(before) :]) > max(before), "ids go on; none is given twice"
    last = checkpoint.find(run / "checkpoints")[-1].state()
    sealed_decisions = sum(1 for _ in rl_rows(log))
    assert last["replay"]["decisions"] <= sealed_decisions, "what the checkpoint counts is sealed"
    assert last["seconds"] > saved.state()["seconds"] and last["updates"] > saved.updates
    left = {row["id"] for row in asked if row["status"] == "pending"}
    answered = {row["id"] for row in log.read("refinement", ["status", "round"]).to_pylist() if row["round"] == 0}
    assert left <= answered, "pending refinements are still known after the resume"


def rl_rows(log: ShardLog) -> Iterator[str]:
    return (source for source in log.read("transition", ["source"])["source"].to_pylist() if source == "rl")


def test_a_run_in_use_is_refused_and_ctrl_c_while_starting_ends_it_in_order(tmp_path, start):
    driver = start("--config", "smoke", *SMALL)
    driver.until(lambda: (tmp_path / "run" / "run.json").exists())
    for arguments, words in ((["--resume", "run"], "is in use by another process"), (SMALL, "is not empty")):
        second = start(*arguments)
        assert second.process.wait(180) == 2
        text = second.log.read_text()
        assert words in text and "Traceback" not in text
    driver.process.send_signal(signal.SIGINT)
    assert driver.process.wait(180) == 130, driver.log.read_text()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "interrupted"


def test_a_run_to_its_budget_ends_with_a_table_in_which_the_first_policy_is_greedy(tmp_path, start):
    small = [word for word in SMALL if not word.startswith(("evaluation", "rollout.hard_starts"))]
    driver = start("--config", "smoke", *small, "budget.decisions=40", "refine.refiner=off")
    assert driver.process.wait(500) == 0, driver.log.read_text()
    run = tmp_path / "run"
    assert json.loads((run / "run.json").read_text())["status"] == "finished"
    table = json.loads((run / "evaluation" / "table.json").read_text())
    agents = {row["agent"]: row for row in table["agents"]}
    last = checkpoint.find(run / "checkpoints")[-1].updates
    assert last > 0 and list(agents) == ["do-nothing", "reconnect", "greedy", "policy@0", f"policy@{last}"]
    assert agents["policy@0"]["survival"]["mean"] == agents["greedy"]["survival"]["mean"]
    assert agents["policy@0"]["reward"] == agents["greedy"]["reward"]
    text = driver.log.read_text()
    assert f"policy@{last} - policy@0" in text and f"run folder: {run}" in text
    assert list((run / "metrics").glob("events.out.tfevents.*"))
    again = start("--resume", "auto", "name=run")
    assert again.process.wait(180) == 0 and "is finished: nothing to do" in again.log.read_text()
