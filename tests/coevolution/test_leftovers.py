"""Which applications on Ray Serve count as left over: run folders and locks are real."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ace_ray.coevolution.leftovers import judge, known_runs
from ace_ray.coevolution.run_folder import RunFolder, open_new
from ace_ray.config.run import RunSettings
from llm_service.deployment import AppArguments
from llm_service.service import app_name
from llm_service.settings import ServiceSettings

pytestmark = pytest.mark.unit


def run(root: Path, name: str) -> RunFolder:
    return open_new(RunSettings(runs_root=str(root), name=name))


def dead(root: Path, name: str) -> Path:
    folder = run(root, name)
    folder.close("failed")
    return folder.path


def arguments(folder: Path | None, name: str = "one") -> AppArguments:
    heartbeat = str(folder / "heartbeat") if folder else ""
    return AppArguments(
        run=name, fingerprint="f", service=ServiceSettings(), replicas=1, cpus=1, gpus=0, heartbeat=heartbeat
    )


def state(name: str, args: AppArguments | None, root: Path) -> str:
    return judge(app_name(name), args, known_runs(root)).state


def test_an_application_is_left_over_when_its_run_has_ended(tmp_path):
    folder = run(tmp_path, "one")
    assert state("one", arguments(folder.path), tmp_path) == "alive"
    assert state("one", None, tmp_path) == "alive"
    folder.close("failed")
    assert state("one", arguments(folder.path), tmp_path) == "gone"
    assert state("one", None, tmp_path) == "gone"


def test_of_two_runs_with_one_name_of_an_application_a_living_one_keeps_it(tmp_path):
    ended, living = dead(tmp_path, "a b"), run(tmp_path, "a+b")
    assert app_name("a b") == app_name("a+b")
    assert state("a b", arguments(ended), tmp_path) == state("a b", None, tmp_path) == "alive"
    living.close("failed")
    assert state("a b", arguments(ended), tmp_path) == state("a b", None, tmp_path) == "gone"


def test_a_run_of_another_root_is_judged_by_its_heartbeat(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    dead(here, "one")
    other = run(there, "one")
    assert state("one", arguments(other.path), here) == "alive"
    assert state("one", arguments(other.path), tmp_path / "empty") == "alive"
    other.close("failed")
    assert state("one", arguments(other.path), tmp_path / "empty") == "gone"


def test_where_nothing_tells_of_the_run_it_is_unknown(tmp_path):
    dead(tmp_path, "one")
    assert state("one", arguments(tmp_path / "nowhere"), tmp_path) == "unknown"
    assert state("two", None, tmp_path) == "unknown"
    assert state("two", arguments(None), tmp_path) == "unknown"
    other = dead(tmp_path / "other", "one")
    with closed_to_this_user(other):
        assert judge(app_name("one"), arguments(other), []).state == "unknown"


def test_the_bench_and_a_service_by_hand_are_never_left_over(tmp_path):
    for name in ("bench", "serve"):
        folder = dead(tmp_path, name)
        assert state(name, arguments(None), tmp_path) == state(name, arguments(folder), tmp_path) == "no run"
        assert state(name, None, tmp_path) == "no run"


def test_a_run_whose_json_is_torn_has_the_name_of_its_folder(tmp_path):
    folder = dead(tmp_path, "one")
    (folder / "run.json").write_text("{")
    assert known_runs(tmp_path) == [("one", folder)]
    assert state("one", None, tmp_path) == "gone"


@contextmanager
def closed_to_this_user(folder: Path) -> Iterator[None]:
    user, mode = os.geteuid(), folder.stat().st_mode
    folder.chmod(0)
    if user == 0:
        os.seteuid(65534)  # root may enter everywhere
    try:
        yield
    finally:
        os.seteuid(user)
        folder.chmod(mode)
