"""Chats are written by the model's own template, also by one that knows no system role."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from ace_ray.finetune.train import encode_chat
from llm_service.chat import prompt_text
from llm_service.errors import ModelError, Rejected
from llm_service.preflight import check_model
from llm_service.settings import EngineSettings

pytestmark = pytest.mark.unit

CHAT = [
    {"role": "system", "content": "You operate a grid.\n"},
    {"role": "user", "content": "Line 5 is full."},
    {"role": "assistant", "content": "{}"},
    {"role": "user", "content": "Worse."},
]
WRITES = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] | trim }}{% endfor %}<assistant>"
RAISES = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system messages, please') }}{% endif %}" + WRITES
)
IGNORES = WRITES.replace("messages %}", "messages if m['role'] != 'system' %}")
TAKES_NOTHING = "{{ raise_exception('closed') }}"


def tokenizer(model: Path, template: str) -> AutoTokenizer:
    found = AutoTokenizer.from_pretrained(model)
    found.chat_template = template
    return found


@pytest.mark.parametrize(
    ("template", "begins"),
    [
        (WRITES, "<system>You operate a grid.<user>Line 5 is full.<assistant>"),
        (RAISES, "<user>You operate a grid.\n\n\nLine 5 is full.<assistant>"),
        (IGNORES, "<user>You operate a grid.\n\n\nLine 5 is full.<assistant>"),
    ],
)
def test_the_system_text_reaches_every_model(tiny_model: Path, template: str, begins: str) -> None:
    writer = tokenizer(tiny_model, template)
    text = prompt_text(writer, CHAT, {})
    assert text == begins + "{}<user>Worse.<assistant>"
    ids, prompt = encode_chat(writer, CHAT, "{}")  # what is tuned on is what is served
    assert writer.decode(ids[:prompt]) == text


def test_what_is_tuned_on_has_the_template_arguments_that_it_is_served_with(tiny_model: Path) -> None:
    writer = tokenizer(tiny_model, WRITES + "{% if not think %}<none>{% endif %}")
    for arguments in ({}, {"think": False}, {"think": True}):
        ids, prompt = encode_chat(writer, CHAT, "{}", arguments)
        text = prompt_text(writer, CHAT, arguments)
        assert writer.decode(ids[:prompt]) == text and text.endswith("<none>") != arguments.get("think", False)


def test_a_template_that_takes_nothing_is_found_before_the_engine_starts(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="closed"):
        prompt_text(tokenizer(tiny_model, TAKES_NOTHING), CHAT, {})
    for name, template, says in (("a", RAISES, ""), ("b", TAKES_NOTHING, "closed"), ("c", "", "no chat template")):
        folder = tmp_path / name
        folder.mkdir()
        for file in tiny_model.iterdir():
            if file.name != "chat_template.jinja":
                (folder / file.name).symlink_to(file)
        if template:
            (folder / "chat_template.jinja").write_text(template)
        settings = EngineSettings(model=str(folder), max_model_len=512)
        if not says:
            assert check_model(settings) == folder
            continue
        with pytest.raises(ModelError, match=says):
            check_model(settings)
