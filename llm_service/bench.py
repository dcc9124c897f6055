"""Throughput of one engine in this process."""

import time

from llm_service.client import LocalClient
from llm_service.errors import LLMServiceError
from llm_service.protocol import Reply
from llm_service.settings import ServiceSettings

_PROMPT = (
    "Line 17 carries 112 % of its limit. Name one substation whose buses you would change, and say why. ({number})"
)


def measure_engine(settings: ServiceSettings, requests: int, tokens: int) -> list[str]:
    """Send `requests` at once, each cut at `tokens`, and count what comes back.

    Returns:
        Lines to print.

    Raises:
        ModelError: The engine does not start.
    """
    chats = [[{"role": "user", "content": _PROMPT.format(number=number)}] for number in range(requests)]
    begun = time.perf_counter()
    with LocalClient(settings.engine, None, settings) as client:
        started = time.perf_counter() - begun
        client.ask_all(chats[:1], max_tokens=8, deadline_s=300.0)
        begun = time.perf_counter()
        answers = client.ask_all(chats, max_tokens=tokens, deadline_s=300.0, temperature=1.0)
        took = time.perf_counter() - begun
        report = client.report()
    replies = [answer for answer in answers if isinstance(answer, Reply)]
    refused = [str(answer) for answer in answers if isinstance(answer, LLMServiceError)]
    replied = sum(reply.reply_tokens for reply in replies)
    read = sum(reply.prompt_tokens for reply in replies)
    return [
        f"{report.model} on {settings.engine.device}: started in {started:.1f} s",
        f"{len(replies):8d} of {requests} requests answered",
        f"{replied / took:8.0f} reply tokens a second ({read} read, {replied} written in {took:.1f} s)",
        f"{len(replies) / took:8.1f} requests a second, mean batch {report.mean_batch:.1f}",
        *(f"refused: {reason}" for reason in refused[:3]),
    ]
