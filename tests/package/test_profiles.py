"""Profiles are found by name, whatever the working folder and however the package got here."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ace_ray.config.errors import ConfigError
from ace_ray.config.load import load_settings
from ace_ray.config.paths import find_profile, shipped_profiles

pytestmark = pytest.mark.unit

REPO = Path(__file__).resolve().parents[2]
CONFIGS = REPO / "configs"
FILES = {path.relative_to(CONFIGS).as_posix(): path for path in CONFIGS.rglob("*.yaml")}


def test_every_profile_of_the_repository_has_a_name_that_works_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(FILES) > 10
    assert {f"{name}.yaml" for name in shipped_profiles()} == FILES.keys()
    for name, path in FILES.items():
        assert load_settings([name.removesuffix(".yaml")]) == load_settings([path]), name


def test_a_path_goes_on_working_and_a_file_of_the_working_folder_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("seed: 11\n")
    (tmp_path / "local").write_text("seed: 12\n")
    assert [load_settings([name]).seed for name in ("mine.yaml", tmp_path / "mine.yaml", "local")] == [11, 11, 12]


def test_a_folder_with_the_name_of_a_profile_does_not_hide_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smoke").mkdir()
    assert find_profile("smoke").samefile(CONFIGS / "smoke.yaml")


@pytest.mark.parametrize("name", ["one-gpu", "configs/one_gpus.yaml", "../one_gpu", "/one_gpu"])
def test_an_unknown_profile_is_answered_with_the_nearest_and_all_names(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        find_profile(name)
    assert name in caught.value.problem
    assert "did you mean one_gpu?" in caught.value.remedy
    assert "grids/l2rpn_case14_sandbox" in caught.value.remedy


def test_a_copy_that_is_not_installed_finds_its_profiles_as_a_submitted_job_does(tmp_path: Path) -> None:
    # Ray copies the working folder file by file, links followed.
    code = tmp_path / "job"
    for part in ("config", "profiles"):
        shutil.copytree(REPO / "ace_ray" / part, code / "ace_ray" / part)
    shutil.copy(REPO / "ace_ray" / "__init__.py", code / "ace_ray")
    told = subprocess.run(
        [sys.executable, "-c", "from ace_ray.config.paths import find_profile; print(find_profile('llm/qwen3'))"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(code)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.strip() == str(code / "ace_ray" / "profiles" / "llm" / "qwen3.yaml")
