"""Thinking is allowed, bounded and no part of the reply: the texts, and a real engine on a tiny Qwen3."""

import json
from pathlib import Path

import pytest

from llm_service.client import LocalClient
from llm_service.errors import RequestTooLarge
from llm_service.settings import EngineSettings, ServiceSettings
from llm_service.thinking import closed, opened, without_thinking
from tests.llm_service.tiny_model import make_adapter, make_tiny_model

SCHEMA = {
    "type": "object",
    "properties": {
        "action": {"type": "object", "properties": {"candidate": {"enum": [1, 2]}}, "required": ["candidate"]}
    },
    "required": ["action"],
}
CHAT = [{"role": "user", "content": "state of the grid"}]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("text", "reply"),
    [
        ('{"a": 1}', '{"a": 1}'),
        (' as it "stands" ', ' as it "stands" '),
        ('<think>\nhm {"a": 2}\n</think>\n\n{"a": 1}\n', '{"a": 1}'),
        ('hm\n</think>{"a": 1}', '{"a": 1}'),  # the template opened the thought
        ('<think>a</think>b<think>c</think>{"a": 1}', '{"a": 1}'),
        ('<think>\nhm {"a": 2}', ""),  # cut: nothing was replied
        ("", ""),
    ],
)
def test_the_reply_is_what_follows_the_thought(text: str, reply: str) -> None:
    assert without_thinking(text) == reply


@pytest.mark.unit
def test_a_thought_is_opened_once_and_closed_wherever_it_was_cut() -> None:
    assert opened("<|im_start|>assistant\n") == "<think>\n"
    assert opened("<|im_start|>assistant\n<think>\n") == ""
    assert closed("line 5 is ho") == "line 5 is ho\n</think>\n\n"
    assert closed("done </think> and more") == "done\n</think>\n\n"


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_qwen3_thinks_up_to_its_bound_and_replies_by_the_schema(
    tmp_path: Path, tiny_settings: EngineSettings
) -> None:
    model = make_tiny_model(tmp_path / "model", architecture="qwen3")
    adapter = make_adapter(model, tmp_path / "adapters", "actor", 1, "alpha alpha alpha", ("state of the grid",))
    smaller = {"max_model_len": 256, "max_num_seqs": 4, "max_loras": 1, "thinking_tokens": 24}
    engine = tiny_settings.model_copy(update={"model": str(model), **smaller})
    with LocalClient(engine, tmp_path / "adapters", ServiceSettings()) as client:
        reply = client.ask(CHAT, max_tokens=60, deadline_s=60, schema=SCHEMA, temperature=1.0, seed=1)
        assert json.loads(reply.text)["action"]["candidate"] in (1, 2)
        assert 1 < reply.reply_tokens <= 24 + 60
        free = client.ask(CHAT, max_tokens=8, deadline_s=60, temperature=1.0, seed=2)
        assert "<think>" not in free.text and free.reply_tokens > 8
        tuned = client.ask(CHAT, max_tokens=8, deadline_s=60, adapter=adapter)
        assert (tuned.role, tuned.version) == ("actor", 1)
        with pytest.raises(RequestTooLarge, match="reply of"):
            client.ask(CHAT, max_tokens=240, deadline_s=60)
