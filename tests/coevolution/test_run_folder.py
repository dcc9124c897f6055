"""Run folders: one run, one writer, clear errors."""

import json
import os
import subprocess
import sys
import time

import pytest

from ace_ray.cli.main import main
from ace_ray.coevolution import run_folder
from ace_ray.config.errors import RunFolderError
from ace_ray.config.run import RunSettings

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv("ACE_RUNS", raising=False)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)


def settings(tmp_path, **changes: object) -> RunSettings:
    return RunSettings(runs_root=str(tmp_path), **({"name": "one"} | changes))


def test_a_new_run_has_its_layout_and_resolved_configuration(tmp_path):
    folder = run_folder.open_new(settings(tmp_path))
    assert folder.path == tmp_path / "one"
    assert {p.name for p in folder.path.iterdir()} == {
        "adapters", "checkpoints", "config.yaml", "evaluation", "heartbeat", "lock", "metrics", "replay", "run.json",
    }  # fmt: skip
    about = json.loads((folder.path / "run.json").read_text())
    assert about["status"] == "running" and about["starts"] == 1 and about["refiner"] == "llm"
    folder.close("finished")
    assert run_folder.read_about(folder.path)["status"] == "finished"
    assert run_folder.saved_settings(folder.path, ["seed=3"]) == settings(tmp_path, seed=3)


def test_a_name_is_made_when_none_is_given(tmp_path):
    folder = run_folder.open_new(settings(tmp_path, name=""))
    assert folder.path.name.endswith("-llm") and folder.about["name"] == folder.path.name
    assert run_folder.saved_settings(folder.path, []).name == folder.path.name
    folder.close("finished")


def test_a_folder_that_holds_a_run_is_refused_without_resume(tmp_path):
    run_folder.open_new(settings(tmp_path)).close("finished")
    with pytest.raises(RunFolderError, match="is not empty") as error:
        run_folder.open_new(settings(tmp_path))
    assert "--resume" in str(error.value)


def test_a_resume_counts_its_start_and_keeps_the_identity(tmp_path):
    first = run_folder.open_new(settings(tmp_path))
    first.close("interrupted")
    second = run_folder.reopen(first.path, settings(tmp_path, seed=9))
    assert second.about["starts"] == 2 and second.about["id"] == first.about["id"]
    assert run_folder.saved_settings(first.path, []).seed == 9
    second.close("finished")


def test_a_run_in_use_is_refused_and_a_killed_driver_leaves_no_lock(tmp_path):
    """The other driver is a real process, killed without a chance to clean up."""
    program = (
        "import sys, time\n"
        "from ace_ray.coevolution import run_folder\n"
        "from ace_ray.config.run import RunSettings\n"
        "folder = run_folder.open_new(RunSettings(name='one', runs_root=sys.argv[1]))\n"
        "print('locked', flush=True); time.sleep(60)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout.readline().strip() == "locked"
        with pytest.raises(RunFolderError, match=rf"in use by another process \(pid {other.pid} on "):
            run_folder.reopen(tmp_path / "one", settings(tmp_path))
    finally:
        other.kill()
        other.wait()
    time.sleep(0.1)
    run_folder.reopen(tmp_path / "one", settings(tmp_path)).close("finished")


def test_a_file_in_place_of_the_root_is_an_unwritable_root(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot write"):
        run_folder.open_new(RunSettings(runs_root=str(tmp_path / "file"), name="x"))


def test_a_run_whose_driver_is_gone_died_whatever_run_json_says(tmp_path, monkeypatch):
    folder = run_folder.open_new(settings(tmp_path))  # held: without a reference the lock would be given back
    path = folder.path
    assert run_folder.read_about(path)["status"] == "running"
    monkeypatch.setattr(run_folder.files, "is_locked", lambda _: False)
    assert run_folder.read_about(path)["status"] == "died"
    monkeypatch.setattr(run_folder.files, "is_locked", lambda _: None)  # a file system that cannot tell
    assert run_folder.read_about(path)["status"] == "running"
    os.utime(path / "heartbeat", (0, time.time() - 2 * run_folder.SILENT_SECONDS))
    assert run_folder.read_about(path)["status"] == "died"
    folder.close("finished")


def test_a_start_that_was_killed_before_it_was_a_run_does_not_block_the_name(tmp_path):
    (tmp_path / "one" / "replay").mkdir(parents=True)
    (tmp_path / "one" / "lock").write_text("")
    run_folder.open_new(settings(tmp_path)).close("finished")
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "mine").write_text("")
    with pytest.raises(RunFolderError, match="is not empty"):
        run_folder.open_new(settings(tmp_path, name="two"))


def test_a_run_json_that_cannot_be_read_hides_its_own_row_only(tmp_path, monkeypatch, capsys):
    run_folder.open_new(settings(tmp_path)).close("finished")
    for name, content in (("list", "[]"), ("null", "null"), ("torn", '{"a'), ("field", '{"status": null}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(content)
    monkeypatch.setenv("ACE_RUNS", str(tmp_path))
    assert main(["runs", "list"]) == 0
    told = capsys.readouterr().out
    assert len(told.splitlines()) == 6 and "finished" in told and told.count("cannot be read") == 3
