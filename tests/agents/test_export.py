import errno
import json
import shutil
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import grid2op
import pytest
from lightsim2grid import LightSimBackend

from ace_ray.agents import registry
from ace_ray.agents.export import export
from ace_ray.agents.exported import load
from ace_ray.config.errors import AceError, ConfigError, GridMismatchError
from ace_ray.config.load import to_yaml
from ace_ray.config.run import RunSettings
from ace_ray.evaluation.evaluate import evaluate_all
from ace_ray.evaluation.play import play
from ace_ray.grid.scenarios.scenario import Scenario
from ace_ray.policy import checkpoint

from .made import small_run

pytestmark = pytest.mark.unit

# Plays in a process of its own, started elsewhere, with our code taken from the export alone.
EPISODE = """
import sys, json, warnings
FORBIDDEN = ("ray", "vllm", "transformers", "peft")
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in FORBIDDEN:
            raise AssertionError(f"{name} was imported")
sys.meta_path.insert(0, Refuse())
warnings.simplefilter("ignore")
import grid2op
from lightsim2grid import LightSimBackend
folder, parent, name = sys.argv[1:4]
sys.path.insert(0, parent)
make_agent = getattr(__import__(name), "make_agent")
env = grid2op.make("l2rpn_neurips_2020_track1", test=True, backend=LightSimBackend())
obs = env.reset(seed=3, options={"time serie id": "Scenario_august_dummy"})
agent = make_agent(env, folder)
import ace_ray
assert ace_ray.__file__.startswith(folder), ace_ray.__file__
agent.reset(obs)
ids, done, steps, reward = [], False, 0, 0.0
while not done and steps < 60:
    action = agent.act(obs, reward, done)
    ids.append(list(agent.last_ids))
    obs, reward, done, info = env.step(action)
    assert not info["is_illegal"] and not info["is_ambiguous"]
    steps += 1
assert agent.decisions > 0
print(json.dumps({"ids": ids, "memory": list(agent.engine.memory)}))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory, own_engine, grid_settings):
    return small_run(tmp_path_factory.mktemp("runs") / "tiny", own_engine, grid_settings)


def test_a_policy_brings_the_grid_settings_of_its_run_or_export(tmp_path, own_engine, grid_settings):
    careful = grid_settings.critical.model_copy(update={"rho_overloaded": 0.87})
    settings = grid_settings.model_copy(update={"critical": careful})
    made = small_run(tmp_path / "careful", own_engine, settings)
    for spec in (f"policy:{made}", f"policy+check:{made}@0", f"policy:{export(made, tmp_path / 'exported')}"):
        assert registry.trained_settings(spec) == settings, spec
    shutil.copytree(made / "checkpoints" / "000000", tmp_path / "alone" / "weights")
    assert registry.trained_settings(f"policy:{tmp_path / 'alone' / 'weights'}") is None
    assert registry.trained_settings("greedy") is None


def test_plays_an_episode_where_ray_and_vllm_cannot_be_imported(run, tmp_path, env, grid_settings):
    folder = export(run, tmp_path / "submission_1")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(EPISODE), str(folder), str(tmp_path), "submission_1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    shown = json.loads(done.stdout.splitlines()[-1])
    agent = registry.make(f"policy:{run}", env, grid_settings)
    scenario = Scenario("l2rpn_neurips_2020_track1", "shipped", "Scenario_august_dummy", 3, 0, 60)
    played: list = []

    class Ids:
        def start(self, *_):
            pass

        def step(self, *_):
            played.append(list(agent.last_ids))

    play(env, agent, scenario, grid_settings, [Ids()])
    assert shown["ids"] == played and any(played)
    assert shown["memory"] == [301, 402] == list(agent.engine.memory)


def test_in_sample_is_what_the_policy_was_trained_on(run, tmp_path, grid_settings):
    shutil.copytree(run / "checkpoints" / "000000", tmp_path / "alone" / "weights")
    trained, unknown = f"policy:{run}", f"policy:{tmp_path / 'alone' / 'weights'}"
    for chronic, seen in ((0, True), (1, False)):
        found = evaluate_all(
            ["reconnect", trained, unknown], f"chronics={chronic};seeds=0;steps=2", grid_settings, processes=1
        )
        assert [one.in_sample for one in found] == [False, seen, seen]
    elsewhere = small_run_on(tmp_path / "elsewhere", run, grid_settings.model_copy(update={"data": "packaged"}))
    (found,) = evaluate_all([f"policy:{elsewhere}"], "chronics=0;seeds=0;steps=2", grid_settings, processes=1)
    assert not found.in_sample


def small_run_on(folder, run, settings):
    """The same policy, as if it had been trained under other settings of the grid."""
    shutil.copytree(run, folder)
    (folder / "config.yaml").write_text(to_yaml(RunSettings(grid=settings)))
    return folder


def test_refuses_another_grid(run, tmp_path, case14):
    folder = export(run, tmp_path / "out")
    case14.reset()
    with pytest.raises(GridMismatchError, match="catalogue"):
        load(case14, folder)


def test_plays_on_an_environment_of_another_backend(run, tmp_path):
    folder = export(run, tmp_path / "out")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        env = grid2op.make("l2rpn_neurips_2020_track1", test=True)
    assert not isinstance(env.backend, LightSimBackend)
    obs = env.reset(seed=0)
    agent = load(env, folder)
    obs, _, done, info = env.step(agent.act(obs, 0.0))
    assert not done and not info["is_illegal"]


def test_does_not_write_into_a_folder_that_holds_something(run, tmp_path):
    (tmp_path / "kept.txt").write_text("mine")
    with pytest.raises(AceError, match="not empty"):
        export(run, tmp_path)


def test_a_full_disk_leaves_no_half_of_an_export(run, tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(AceError, match="No space left"):
        export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_torn_checkpoint_is_not_exported(run, tmp_path, own_engine, grid_settings):
    torn = small_run(tmp_path / "torn", own_engine, grid_settings)
    weights = torn / "checkpoints" / "000000" / checkpoint.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(AceError, match="cannot be read"):
        export(torn, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_policy_is_refused_on_another_grid_or_under_other_slots(run, case14, env, grid_settings):
    case14.reset()
    with pytest.raises(GridMismatchError):
        registry.make(f"policy:{run}", case14, grid_settings.model_copy(update={"env": "l2rpn_case14_sandbox"}))
    fewer = grid_settings.candidates.model_copy(update={"slots": 32})
    env.reset()
    with pytest.raises(GridMismatchError, match="slots"):
        registry.make(f"policy:{run}", env, grid_settings.model_copy(update={"candidates": fewer}))


def test_runs_are_found_by_path_by_name_and_by_checkpoint(run, monkeypatch, tmp_path):
    folder = run / "checkpoints" / "000000"
    assert registry.policy_folder(str(run)) == folder
    assert registry.policy_folder(f"{run}@0") == folder
    monkeypatch.setenv("ACE_RUNS", str(run.parent))
    monkeypatch.chdir(tmp_path)
    assert registry.policy_folder("tiny@0") == folder
    with pytest.raises(AceError, match="no checkpoint 7"):
        registry.policy_folder("tiny@7")
    with pytest.raises(AceError, match="no run 'nowhere'"):
        registry.check("policy:nowhere")


def test_an_unknown_agent_is_named_with_those_that_exist(env, grid_settings):
    for act in (lambda: registry.make("gredy", env, grid_settings), lambda: registry.check("gredy")):
        with pytest.raises(ConfigError, match="greedy\\+check"):
            act()
    with pytest.raises(ConfigError, match="cannot be loaded"):
        registry.make("no_such_module_here:make_agent", env, grid_settings)


def test_an_outside_agent_is_loaded_from_a_submission_folder(env, grid_settings, tmp_path):
    folder = tmp_path / "their_submission"
    folder.mkdir()
    (folder / "__init__.py").write_text("from .agent import make_agent\n")
    (folder / "agent.py").write_text(
        "from grid2op.Agent import DoNothingAgent\n"
        "def make_agent(env, path):\n    agent = DoNothingAgent(env.action_space)\n"
        "    agent.path = path\n    return agent\n"
    )
    agent = registry.make(f"{folder}:make_agent", env, grid_settings)
    assert Path(agent.path) == folder
    played = play(env, agent, Scenario(grid_settings.env, "shipped", "Scenario_august_dummy", 3, 0, 20), grid_settings)
    assert played.episode.steps == 20 and played.episode.illegal_actions == 0
