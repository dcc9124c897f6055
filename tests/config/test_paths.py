"""One answer to where runs lie."""

import pytest

from ace_ray.agents.registry import policy_folder
from ace_ray.config.errors import ConfigError, RunFolderError
from ace_ray.config.paths import locate, runs_root
from ace_ray.config.run import RunSettings

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("ACE_RUNS", raising=False)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "runs" / "one"
    (folder / "checkpoints" / "000000").mkdir(parents=True)
    (folder / "run.json").write_text("{}")
    (folder / "checkpoints" / "000000" / "policy.json").write_text("{}")
    return folder


def test_the_variable_goes_before_the_setting_and_both_become_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert runs_root() == tmp_path / "runs"
    assert runs_root(RunSettings(runs_root="elsewhere")) == tmp_path / "elsewhere"
    monkeypatch.setenv("ACE_RUNS", "/data/runs")
    assert str(runs_root(RunSettings(runs_root="elsewhere"))) == "/data/runs"


def test_inside_a_job_the_runs_root_must_be_absolute(monkeypatch, run):
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(ConfigError, match="runs_root=runs is relative"):
        runs_root(RunSettings())
    assert locate(run) == run, "a fine-tuning job names the run by its path"
    monkeypatch.setenv("ACE_RUNS", str(run.parent))
    assert runs_root(RunSettings()) == run.parent


def test_runs_are_found_by_path_and_by_name_wherever_one_asks(monkeypatch, run, tmp_path):
    settings = RunSettings(runs_root=str(run.parent))
    assert locate("one", settings) == locate(run) == run
    with pytest.raises(RunFolderError, match="no run two"):
        locate("two", settings)
    monkeypatch.chdir(tmp_path)
    assert policy_folder("one") == policy_folder(str(run)) == run / "checkpoints" / "000000"
    monkeypatch.chdir("/")
    monkeypatch.setenv("ACE_RUNS", str(run.parent))
    assert policy_folder("one") == run / "checkpoints" / "000000"
