"""A chat as the model's own template writes it: the one rendering that serving and fine-tuning share."""

from collections.abc import Mapping, Sequence
from typing import Any

from llm_service.errors import Rejected


def prompt_text(tokenizer: Any, messages: Sequence[Mapping[str, str]], arguments: Mapping[str, Any]) -> str:
    """The prompt, up to where the reply begins.

    A template that knows no system role raises on it or leaves it out: then the system's text goes before the user's.

    Args:
        tokenizer: of transformers, with a chat template.
        arguments: of the template (`engine.chat_template_kwargs`).

    Raises:
        Rejected: the template does not take these messages.
    """
    from jinja2.exceptions import TemplateError

    def render(rows: Sequence[Mapping[str, str]]) -> str:
        text = tokenizer.apply_chat_template(
            [dict(row) for row in rows], add_generation_prompt=True, tokenize=False, **arguments
        )
        return str(text)

    system = [row["content"].strip() for row in messages if row["role"] == "system"]
    try:
        text = render(messages)
        if all(part in text for part in system):
            return text
    except TemplateError as error:
        if not system:
            raise _refused(error) from error
    try:
        return render(_without_system(messages))
    except TemplateError as error:
        raise _refused(error) from error


def _refused(error: Exception) -> Rejected:
    return Rejected(f"the model's chat template does not accept these messages: {error}", "use an instruct model")


def _without_system(messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """The chat with each system text at the head of the user's message that follows."""
    rows: list[dict[str, str]] = []
    held: list[str] = []
    for message in messages:
        if message["role"] == "system":
            held.append(message["content"])
        elif held and message["role"] == "user":
            rows.append({"role": "user", "content": "\n\n".join([*held, message["content"]])})
            held = []
        else:
            rows.append(dict(message))
    return [*rows, {"role": "user", "content": "\n\n".join(held)}] if held else rows
