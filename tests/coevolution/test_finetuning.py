"""When fine-tuning jobs are submitted, and what is told of them; Ray's Jobs API is scripted."""

import json

import pytest
import requests

from ace_ray.coevolution import finetuning
from ace_ray.config.run import RunSettings

pytestmark = pytest.mark.unit


class Status(str):
    def is_terminal(self) -> bool:
        return self != "RUNNING"


class ScriptedJobs:
    def __init__(self) -> None:
        self.submitted: list[dict] = []
        self.status = Status("RUNNING")
        self.refuse = 0
        self.stopped: list[str] = []

    def submit_job(self, *, entrypoint: str, **options) -> str:
        if self.refuse:
            self.refuse -= 1
            raise RuntimeError("No available agent to submit job")
        self.submitted.append({"entrypoint": entrypoint, **options})
        return f"job-{len(self.submitted)}"

    def get_job_status(self, job_id: str) -> Status:
        return self.status

    def get_job_logs(self, job_id: str) -> str:
        return "Traceback\nDataError: gate file missing"

    def stop_job(self, job_id: str) -> bool:
        self.stopped.append(job_id)
        return True


@pytest.fixture
def jobs(monkeypatch) -> ScriptedJobs:
    monkeypatch.setattr(finetuning, "runtime_env", lambda: {"env_vars": {"PYTHONPATH": "/code"}})
    return ScriptedJobs()


@pytest.fixture
def tuning(tmp_path, jobs) -> finetuning.Finetuning:
    (tmp_path / "adapters").mkdir()
    settings = RunSettings.model_validate({"finetune": {"every": 8}, "resources": {"finetune_cpu": 0.3}})
    return finetuning.Finetuning(settings, tmp_path, jobs, "10.0.0.1:6379")


def decided(folder, published: bool, number: int = 1) -> None:
    record = {
        "role": "actor", "version": number, "published": published, "seconds": 1.0,
        "gate": {"present_regret": 0.5, "new_regret": 0.4, "states": 64},
    }  # fmt: skip
    (folder / "adapters" / f"finetune-{number:03d}.json").write_text(json.dumps(record))


def test_a_job_is_submitted_every_n_newly_confirmed_refinements(tuning, jobs, tmp_path):
    for confirmed in (0, 3, 7):
        tuning.poll(confirmed)
    assert not jobs.submitted
    tuning.poll(9)
    assert len(jobs.submitted) == 1 and tuning.running
    job = jobs.submitted[0]
    assert job["entrypoint"].startswith("env RAY_ADDRESS=10.0.0.1:6379 ")
    assert job["entrypoint"].endswith(f" -m ace_ray finetune {tmp_path}")
    assert job["entrypoint_num_cpus"] == 0.3 and job["runtime_env"]
    tuning.poll(30)
    assert len(jobs.submitted) == 1, "one at a time"
    decided(tmp_path, published=True)
    jobs.status = Status("SUCCEEDED")
    tuning.poll(30)
    assert tuning.outcomes == {"published": 1, "refused": 0, "failed": 0} and not tuning.running
    jobs.status = Status("RUNNING")
    tuning.poll(16)
    assert len(jobs.submitted) == 1, "counted from the last submission at 9"
    tuning.poll(17)
    assert len(jobs.submitted) == 2


def test_a_refused_version_and_a_failed_job_are_told_apart(tuning, jobs, tmp_path, caplog):
    tuning.poll(8)
    decided(tmp_path, published=False)
    jobs.status = Status("SUCCEEDED")
    tuning.poll(8)
    jobs.status = Status("FAILED")
    tuning.poll(16)
    tuning.poll(16)
    assert tuning.outcomes == {"published": 0, "refused": 1, "failed": 1}
    assert "gate file missing" in caplog.text


def test_a_jobs_api_that_is_still_starting_is_asked_again_after_a_while(tmp_path, jobs):
    now = [0.0]
    settings = RunSettings.model_validate({"finetune": {"every": 8}})
    tuning = finetuning.Finetuning(settings, tmp_path, jobs, "10.0.0.1:6379", clock=lambda: now[0])
    jobs.refuse = 1
    tuning.poll(8)
    now[0] = 1.0
    tuning.poll(8)
    assert not jobs.submitted, "asking is slow, so not at every poll"
    now[0] = 1.0 + finetuning.AGAIN_SECONDS
    tuning.poll(8)
    assert len(jobs.submitted) == 1


def test_a_jobs_api_that_does_not_answer_ends_nothing(tmp_path, jobs, monkeypatch):
    """A fake of the Jobs API that fails as Ray's client does: with the errors of `requests`."""
    now = [0.0]
    (tmp_path / "adapters").mkdir()
    settings = RunSettings.model_validate({"finetune": {"every": 8}})
    tuning = finetuning.Finetuning(settings, tmp_path, jobs, "10.0.0.1:6379", clock=lambda: now[0])

    def after(step: str, error: Exception) -> None:
        with monkeypatch.context() as patch:

            def fails(*_: object, **__: object) -> None:
                raise error

            patch.setattr(jobs, step, fails)
            now[0] += 2 * finetuning.AGAIN_SECONDS
            tuning.poll(8)
        now[0] += 2 * finetuning.AGAIN_SECONDS

    after("submit_job", requests.ConnectionError("refused"))
    assert not tuning.running
    monkeypatch.setattr(finetuning, "runtime_env", lambda: {})
    tuning.poll(8)
    for error in (requests.ConnectionError("refused"), requests.ReadTimeout("no answer"), RuntimeError("busy")):
        after("get_job_status", error)
        assert tuning.running and len(jobs.submitted) == 1
    jobs.status = Status("FAILED")
    after("get_job_logs", requests.ReadTimeout("no answer"))
    assert tuning.running and tuning.outcomes["failed"] == 0, "it is looked at again"
    tuning.poll(8)
    assert tuning.outcomes["failed"] == 1
    jobs.status = Status("RUNNING")
    tuning.poll(16)
    monkeypatch.setattr(jobs, "stop_job", lambda _: (_ for _ in ()).throw(requests.ConnectionError("refused")))
    tuning.finish(wait_s=0.0)
    assert not tuning.running


def test_a_request_to_the_jobs_api_has_a_time_out(monkeypatch):
    asked: dict[str, object] = {}

    class FakeClient:
        def __init__(self, _: str) -> None: ...

        def _do_request(self, *_: object, **options: object) -> None:
            asked.update(options)

    monkeypatch.setattr("ray.job_submission.JobSubmissionClient", FakeClient)
    finetuning.connect_jobs("http://127.0.0.1:1")._do_request("GET", "/")
    assert asked["timeout"] == (finetuning.CONNECT_SECONDS, finetuning.READ_SECONDS)


def test_at_the_end_a_job_that_does_not_come_to_its_gate_is_stopped(tuning, jobs):
    tuning.poll(8)
    tuning.finish(wait_s=0.0)
    assert jobs.stopped == ["job-1"] and not tuning.running


def test_a_resume_counts_from_where_the_run_was(tmp_path, jobs):
    (tmp_path / "adapters").mkdir()
    settings = RunSettings.model_validate({"finetune": {"every": 8}})
    tuning = finetuning.Finetuning(settings, tmp_path, jobs, "10.0.0.1:6379", tuned_at=20)
    tuning.poll(27)
    assert not jobs.submitted
    tuning.poll(28)
    assert jobs.submitted


def test_nothing_is_submitted_with_fewer_refinements_than_the_job_needs(tmp_path, jobs):
    settings = RunSettings.model_validate({"finetune": {"every": 2, "least": 8}})
    tuning = finetuning.Finetuning(settings, tmp_path, jobs, "10.0.0.1:6379")
    tuning.poll(7)
    assert not jobs.submitted
    tuning.poll(8)
    assert jobs.submitted
