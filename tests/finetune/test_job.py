"""`ace finetune RUN`: data set, training, gate and publication in one, with a scripted service."""

import json

import pytest

from ace_ray.config.errors import DataError
from ace_ray.config.refine import FinetuneSettings
from ace_ray.config.run import RunSettings
from ace_ray.finetune import train
from ace_ray.finetune.job import finetune
from ace_ray.lab.embedded.model import ModelShape, new_model, save_model, train_tokenizer
from llm_service.adapters import model_fingerprint, verify
from llm_service.chat import prompt_text
from llm_service.errors import Refused
from llm_service.fake import FakeClient
from llm_service.settings import EngineSettings, ServiceSettings
from tests.finetune.made import answer, example, gate_cases
from tests.finetune.runs import refinement, write_log

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """An untrained model folder: here the service is scripted, only the files matter."""
    import torch

    torch.manual_seed(0)
    rows = [example(i) for i in range(4)]
    tokenizer = train_tokenizer([m["content"] for e in rows for m in e.messages] + [e.reply for e in rows], 2900)
    shape = ModelShape(hidden=32, layers=1, heads=2, kv_heads=1, intermediate=64, positions=1024)
    folder = tmp_path_factory.mktemp("base")
    save_model(new_model(tokenizer, shape), tokenizer, folder)
    return folder


@pytest.fixture
def run(tmp_path):
    """A run folder with twelve confirmed refinements."""
    rows = []
    for i in range(12):
        made = example(i)
        rows.append(refinement(i + 1, replies=[made.reply], messages=made.messages))
    write_log(tmp_path / "run" / "replay", rows)
    return tmp_path / "run"


def settings(base, **changes) -> RunSettings:
    return RunSettings(
        llm=ServiceSettings(engine=EngineSettings(model=str(base))),
        finetune=FinetuneSettings(rank=8, examples=12, batch=4, **changes),
    )


def service(run, good: bool):
    """A service whose base model names candidate 1, right half of the time; version 1 is right, later ones if good."""

    def script(request):
        if request.max_tokens == 1:
            return "ready"
        text = request.messages[-1]["content"]
        right = 2 if "Bad example: candidate 1" in text else 1
        if request.adapter is None:
            return answer(1)
        return answer(right) if good or request.adapter.version == 1 else answer(3 - right)

    return FakeClient(script, run / "adapters")


def test_a_better_version_is_sealed_accepted_and_published(run, base):
    client = service(run, good=True)
    record = finetune(run, settings(base), client, gate=gate_cases(32))
    assert record["accepted"] and record["published"]
    assert record["gate"]["present_regret"] == pytest.approx(0.4)
    assert record["gate"]["new_regret"] == 0
    ref = client.current("actor")
    assert ref is not None
    assert (ref.role, ref.version) == ("actor", 1)
    manifest = verify(ref, base_model=model_fingerprint(base), max_rank=16)
    assert manifest["extra"]["data"]["refinements"] == 12
    assert json.loads((run / "adapters" / "finetune-001.json").read_text()) == record


def test_a_worse_version_is_refused_and_the_former_stays(run, base):
    finetune(run, settings(base), service(run, good=True), gate=gate_cases(32))
    client = service(run, good=False)
    lines: list[str] = []
    record = finetune(run, settings(base), client, gate=gate_cases(32), say=lines.append)
    against = record["gate"]["against"]
    assert against["present"]["regret"]["difference"] == pytest.approx(0.8)
    assert against["untuned"]["regret"]["difference"] == pytest.approx(0.4)
    assert any("against the untuned version" in line for line in lines)
    assert (record["version"], record["against"]) == (2, "actor-v1")
    assert not record["accepted"] and not record["published"]
    assert client.current("actor").version == 1
    assert (run / "adapters" / "finetune-002.json").is_file()


def test_an_accepted_version_that_the_service_refuses_is_reported_not_published(run, base):
    good = service(run, good=True)

    class Busy(FakeClient):
        def publish(self, ref):
            raise Refused("the queue is full")

    client = Busy(lambda request: good._answer(request), run / "adapters")
    record = finetune(run, settings(base), client, gate=gate_cases(8))
    assert record["accepted"] and not record["published"]
    assert record["problem"] == "the queue is full"
    assert client.current("actor") is None


def test_too_few_refinements_name_the_setting(run, base):
    with pytest.raises(DataError, match="12 refinements to learn from.*needs 13") as error:
        finetune(run, settings(base, least=13), service(run, True), gate=gate_cases(8))
    assert "finetune.least" in error.value.remedy
    assert not (run / "adapters" / "actor-v1").exists()


def test_preferences_need_a_reply_that_lost(run, base):
    with pytest.raises(DataError, match="0 refinements with a better and a worse reply"):
        finetune(run, settings(base, objective="dpo"), service(run, True), gate=gate_cases(8))


def test_the_critic_has_no_labels_to_tune_on(run, base):
    with pytest.raises(DataError, match="critic"):
        finetune(run, settings(base), service(run, True), role="critic", gate=gate_cases(8))


def test_the_prompts_of_training_have_the_template_arguments_of_the_engine(run, base, monkeypatch):
    arguments = []

    def recording(tokenizer, messages, given):
        arguments.append(given)
        return prompt_text(tokenizer, messages, given)

    monkeypatch.setattr(train, "prompt_text", recording)
    engine = EngineSettings(model=str(base), chat_template_kwargs={"enable_thinking": False})
    changed = settings(base).model_copy(update={"llm": ServiceSettings(engine=engine)})
    finetune(run, changed, service(run, good=True), gate=gate_cases(8))
    assert arguments == [{"enable_thinking": False}] * 12
