"""A reasoning model's thinking: allowed, bounded, and no part of the reply.

Models that reason write `<think>…</think>` before they answer. An own engine lets them (`engine.thinking_tokens`): it
generates up to the closing mark or the bound, closes the thought, and only then holds the answer to the schema. What
an endpoint (or a model that thinks unasked) returns is stripped.
"""

OPEN, CLOSE = "<think>", "</think>"


def without_thinking(text: str) -> str:
    """The reply alone. A thought that was not closed was cut, and nothing was replied."""
    before, closed, after = text.rpartition(CLOSE)
    rest = after if closed else before or after
    reply, opened, _ = rest.partition(OPEN)
    return reply.strip() if closed or opened else text


def opened(prompt: str) -> str:
    """What has to follow a prompt so that the model thinks: some templates open the thought themselves."""
    return "" if prompt.rstrip().endswith(OPEN) else f"{OPEN}\n"


def closed(thought: str) -> str:
    """A thought that ended or was cut, closed so that the reply follows."""
    return f"{thought.partition(CLOSE)[0].rstrip()}\n{CLOSE}\n\n"
