"""The gate: what counts, what is accepted; adapters trained on right and on shuffled labels."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ace_ray.config.errors import DataError
from ace_ray.config.refine import FinetuneSettings, LanguageSettings
from ace_ray.domain import Outcome
from ace_ray.finetune.gate import answers, client_replier, decide, run_gate
from ace_ray.finetune.held_out import deployed_case, load_gate
from ace_ray.finetune.train import collate, encode_chat, reply_loss, train_adapter
from ace_ray.grid.domain import GridDomain
from ace_ray.lab.embedded.evaluate import evaluate_replies, local_replier, survival_regret
from ace_ray.lab.embedded.model import ModelShape, new_model, save_model, train_tokenizer
from ace_ray.language.prompts import actor_messages
from llm_service.adapters import AdapterRef
from llm_service.errors import DeadlineExceeded, ModelError
from llm_service.fake import FakeClient
from llm_service.settings import EMBEDDED
from tests.finetune.made import NEVER_REBUILT, answer, example, gate_cases, labelled

pytestmark = pytest.mark.unit

CASES = gate_cases(40)


def test_regret_is_the_share_of_the_horizon_that_was_given_away():
    assert survival_regret(labelled(0), 1) == 0
    assert survival_regret(labelled(0), 2) == pytest.approx(0.8)
    assert survival_regret(labelled(0), None) == pytest.approx(0.8)


def test_replies_that_name_nothing_usable_count_as_the_worst_action():
    replies = [answer(1), answer(2), answer(9), "prose", '{"action": {"line": 3, "status": "out"}}']
    found = answers([gate_cases(1)[0]] * 5, replies)
    assert found.regret.tolist() == pytest.approx([0.0, 0.8, 0.8, 0.8, 0.8])
    assert found.better.tolist() == [1, 0, 0, 0, 0]
    assert found.unusable == 4  # the bad example, an unlisted number, prose, and an action that nobody replayed


def test_an_action_outside_the_cache_is_replayed_by_the_judge():
    asked = []

    def judge(case, reply):
        asked.append(reply)
        return Outcome(True, 100, 9.0) if "line" in reply else None

    replies = ['{"action": {"line": 3, "status": "out"}}', '{"action": {"substation": 3, "buses": [1]}}', answer(9)]
    found = answers([gate_cases(1)[0]] * 3, replies, judge)
    assert found.regret.tolist() == pytest.approx([0.0, 0.8, 0.8])
    assert found.better.tolist() == [1, 0, 0]
    assert (found.unusable, asked) == (2, replies[:2])


def test_accepted_is_what_is_no_worse_by_more_than_the_tolerated_standard_errors():
    old = np.zeros(64)
    assert decide(old, old, 1.0)[0]
    one = old.copy()
    one[0] = 0.8  # one worse decision of 64: mean 0.0125, standard error 0.0125
    assert decide(old, one, 1.0)[0]
    assert not decide(old, one, 0.5)[0]
    eight = old.copy()
    eight[:8] = 0.8
    assert not decide(old, eight, 1.0)[0]
    assert decide(eight, old, 1.0)[0]


def test_a_version_is_set_beside_the_present_one_and_beside_no_tuning_with_intervals():
    chronics = [replace(NEVER_REBUILT.scenario, chronic=f"c{i % 5}") for i in range(len(CASES))]
    cases = [replace(c, snapshot=replace(NEVER_REBUILT, scenario=s)) for c, s in zip(CASES, chronics, strict=True)]
    right = [answer(1 + i % 2) for i in range(40)]
    wrong = [answer(2 - i % 2) for i in range(40)]
    half = right[:20] + wrong[20:]
    result = run_gate(cases, lambda chats: half, lambda chats: right, 1.0, untuned=lambda chats: wrong)
    assert (result.present_regret, result.new_regret) == (pytest.approx(0.4), 0)
    assert (result.present_better, result.new_better) == (0.5, 1.0)
    assert result.untuned == {"regret": pytest.approx(0.8), "better": 0.0}
    assert result.against["untuned"]["regret"] == {"difference": pytest.approx(-0.8), "ci95": [-0.8, -0.8]}
    paired = result.against["present"]["better"]
    assert paired["difference"] == 0.5
    assert paired["ci95"][0] < 0.5 < paired["ci95"][1]
    assert json.loads(json.dumps(result.to_json())) == result.to_json()


def test_where_nothing_was_tuned_before_the_present_version_is_the_untuned_one():
    right = [answer(1 + i % 2) for i in range(40)]
    result = run_gate(CASES, lambda chats: [answer(1)] * 40, lambda chats: right, 1.0)
    assert result.against["untuned"] == result.against["present"]
    assert result.untuned["regret"] == result.present_regret == pytest.approx(0.4)


def test_the_client_is_asked_for_exactly_the_named_version_and_asked_again_when_late():
    client = FakeClient([DeadlineExceeded("late"), answer(1), answer(1)])
    ref = AdapterRef("actor", 3, "/nowhere", "hash")
    ask = client_replier(client, ref, LanguageSettings())
    assert ask([example(0).messages]) == [answer(1)]
    assert {request.adapter for request in client.requests} == {ref}
    assert {request.temperature for request in client.requests} == {0.0}


def test_a_missing_gate_file_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(DataError, match="build-embedded --stage files"):
        load_gate(tmp_path, 8, LanguageSettings(), GridDomain())


def test_evaluation_sets_the_model_beside_simple_choices():
    cases = [labelled(i) for i in range(20)]
    right = [answer(1 + i % 2) for i in range(20)]
    figures = evaluate_replies(cases, lambda chats: right)
    assert figures["pivotal"]["states"] == 20
    assert figures["all"]["model"] == 0
    assert figures["all"]["random"] == pytest.approx(0.4)
    assert figures["all"]["first"] == 0


# -- with a real (tiny) model ---------------------------------------------------------------------------------------

SETTINGS = FinetuneSettings(rank=8, alpha=16, lr=4e-3, batch=8, seed=1)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A tiny model that has learned the right answers."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    rows = [example(i) for i in range(200)]
    texts = [t for e in rows[:40] for t in (*(m["content"] for m in e.messages), e.reply)]
    tokenizer = train_tokenizer(texts, 2900)
    shape = ModelShape(hidden=64, layers=1, heads=2, kv_heads=1, intermediate=128, positions=1024)
    model = new_model(tokenizer, shape)
    encoded = [encode_chat(tokenizer, e.messages, e.reply) for e in rows]
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(120):
        optimiser.param_groups[0]["lr"] = 1e-2 * min(1.0, (step + 1) / 20, (120 - step) / 40)
        batch = collate(encoded[4 * (step % 50) : 4 * (step % 50) + 4])
        loss = reply_loss(model, batch)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    folder = tmp_path_factory.mktemp("base")
    save_model(model, tokenizer, folder)
    return folder


def replier(base, adapter=None):
    """Replies of the base model, or of an adapter on it."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    return local_replier(model.eval(), AutoTokenizer.from_pretrained(base), "cpu", max_tokens=40)


@pytest.fixture(scope="module")
def present(base):
    return replier(base)


def test_the_tiny_model_learned_its_task(present):
    found = answers(gate_cases(32), present([example(1000 + i).messages for i in range(32)]))
    assert (found.unusable, found.regret.mean(), found.better.mean()) == (0, pytest.approx(0.0), 1.0)


def test_an_adapter_trained_on_right_labels_is_accepted(base, present, tmp_path):
    report = train_adapter(base, [example(i) for i in range(64)], SETTINGS, tmp_path / "actor-v1")
    assert sorted(f.name for f in (tmp_path / "actor-v1").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    result = run_gate(gate_cases(64), present, replier(base, tmp_path / "actor-v1"), tolerance=1.0)
    assert report.steps == 8
    assert result.accepted
    assert result.new_unusable == 0


def test_an_adapter_trained_long_on_shuffled_labels_is_visibly_worse_and_refused(base, present, tmp_path):
    answers = np.random.default_rng(0).permutation([1 + i % 2 for i in range(160)])
    shuffled = [example(i, int(n)) for i, n in zip(range(160), answers, strict=True)]
    train_adapter(base, shuffled * 2, SETTINGS, tmp_path / "actor-v1")
    result = run_gate(gate_cases(64), present, replier(base, tmp_path / "actor-v1"), tolerance=1.0)
    assert not result.accepted
    assert result.new_regret > result.present_regret + 0.15


def test_preferences_turn_a_model_that_was_right_to_what_is_preferred(base, present, tmp_path):
    swapped = [replace(example(i, 2 - i % 2), worse=example(i).reply) for i in range(120)]
    settings = SETTINGS.model_copy(update={"objective": "dpo", "dpo_beta": 0.5})
    report = train_adapter(base, swapped, settings, tmp_path / "actor-v1")
    result = run_gate(gate_cases(32), present, replier(base, tmp_path / "actor-v1"), tolerance=1.0)
    assert report.last_loss < 0.7 * report.first_loss
    assert not result.accepted
    assert result.new_regret > 0.3
    assert result.new_better < 0.7


def test_training_repeats_with_the_seed(base, tmp_path):
    for name in ("a", "b", "c"):
        settings = replace_seed(2 if name == "c" else 1)
        train_adapter(base, [example(i) for i in range(16)], settings, tmp_path / name)
    weights = {n: (tmp_path / n / "adapter_model.safetensors").read_bytes() for n in ("a", "b", "c")}
    assert weights["a"] == weights["b"]
    assert weights["a"] != weights["c"]


def replace_seed(seed: int) -> FinetuneSettings:
    return SETTINGS.model_copy(update={"seed": seed})


def test_a_missing_base_model_is_one_clear_error(tmp_path):
    with pytest.raises(ModelError, match="cannot be loaded"):
        train_adapter(tmp_path / "none", [example(0)], SETTINGS, tmp_path / "out")


def test_the_gate_shows_what_the_runs_prompts_show():
    plain = load_gate(EMBEDDED, 8, LanguageSettings(candidates=5, danger=False), GridDomain())
    with_danger = load_gate(EMBEDDED, 8, LanguageSettings(), GridDomain())
    for bare, full in zip(plain, with_danger, strict=True):
        assert len(bare.labelled.case.candidates) == 6
        assert "danger" not in actor_messages(deployed_case(bare.labelled))[1]["content"]
        assert "Least danger of what is left" in actor_messages(deployed_case(full.labelled))[1]["content"]
        assert full.labelled.outcomes == bare.labelled.outcomes
