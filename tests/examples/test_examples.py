"""The README's Python and the scripts of examples/ run, and do what they say."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import ace_ray

REPO = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((REPO / "examples").glob("*.py"))
MOST_LINES = 40
SMALL = ("smoke", "budget.decisions=24", "evaluation.enabled=false", "replay.warmup=8")


def example(name: str) -> ModuleType:
    """The module of one example, loaded from its file."""
    spec = importlib.util.spec_from_file_location(name, REPO / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.unit
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES
    assert len(EXAMPLES) == 5


@pytest.mark.unit
def test_importing_the_package_imports_nothing_heavy():
    script = "import sys, ace_ray; print([m for m in ('grid2op', 'ray', 'torch', 'numpy', 'vllm') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ace_ray.nothing  # noqa: B018 - the look-up is what is tested


@pytest.mark.unit
def test_judging_an_action_gives_a_verdict():
    assert example("judge_an_action").main("l2rpn_case14_sandbox") in ("better", "tie", "worse")


@pytest.mark.unit
def test_the_proposer_is_asked_and_its_proposals_are_replayed():
    rounds = example("write_a_proposer").main()
    assert 1 <= len(rounds) <= 2
    assert all(attempt.verdict in ("better", "tie", "worse") for attempt in rounds)
    assert len({attempt.id for attempt in rounds}) == len(rounds)


@pytest.mark.unit
def test_the_agent_plays_where_any_agent_does():
    agent = f"{REPO / 'examples' / 'write_an_agent.py'}:make_agent"
    (played,) = ace_ray.evaluate(agent, "validation:1;steps=30", "evaluation.processes=1")
    assert played.episodes[0].steps > 0 and played.episodes[0].illegal_actions == 0


@pytest.mark.ray
@pytest.mark.slow
def test_the_readme_runs_and_its_run_can_be_read(tmp_path):
    (block,) = re.findall(r"```python\n(.*?)```", (REPO / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len([line for line in block.splitlines() if line]) <= 10
    script = block.replace('"budget.decisions=40"', ", ".join(f'"{setting}"' for setting in SMALL))
    environment = {**os.environ, "ACE_RUNS": str(tmp_path), "PYTHONPATH": str(REPO)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", f"{script}\nprint('run:', run)"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "'greedy': " in done.stdout and "'do-nothing': " in done.stdout
    run = done.stdout.rsplit("run: ", 1)[1].strip()
    assert example("read_the_shards").main(run)["rl"] >= 24


@pytest.mark.ray
@pytest.mark.slow
def test_training_without_a_model_ends_with_two_numbers(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ACE_RUNS", str(tmp_path))
    example("train_without_a_model").main(*SMALL, "evaluation.processes=1")
    assert re.search(r"greedy: [\d.]+ % of the steps survived\npolicy:\S+: [\d.]+ % of", capsys.readouterr().out)
