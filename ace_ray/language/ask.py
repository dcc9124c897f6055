"""Asking a model one chat: what was answered, or why nothing was."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ace_ray.config.refine import LanguageSettings
from ace_ray.language.prompts import Message
from llm_service.adapters import AdapterRef
from llm_service.errors import DeadlineExceeded, Refused
from llm_service.protocol import LLM, Priority, Reply


@dataclass(frozen=True)
class Answer:
    """What came of a request.

    Attributes:
        reply: the service's reply; None where there is none.
        failure: why there is none, with its text; None where there is a reply.
        seconds: wall time of the request.
    """

    reply: Reply | None
    failure: Refused | DeadlineExceeded | None
    seconds: float

    @property
    def error(self) -> Literal["deadline", "refused"] | None:
        """Why there is no reply, in the word that records keep."""
        if self.failure is None:
            return None
        return "deadline" if isinstance(self.failure, DeadlineExceeded) else "refused"

    @property
    def whole(self) -> bool:
        """Whether there is a reply that was not cut; what can be read of a cut one is not what it was going to say."""
        return self.reply is not None and self.reply.finish_reason != "length"


def ask_model(
    client: LLM,
    messages: Sequence[Message],
    settings: LanguageSettings,
    *,
    schema: dict[str, Any] | None,
    role: str | None,
    adapter: AdapterRef | None = None,
    priority: int = Priority.FRESH,
    temperature: float | None = None,
    seed: int | None = None,
) -> Answer:
    """One chat, within the bounds of the settings.

    Args:
        client: asks the model.
        messages: the chat.
        settings: bound of the reply, deadline, temperature.
        schema: what the reply is held to; None: nothing.
        role: whose published adapter answers; None: the base model's, unless `adapter` is given.
        adapter: exactly this version answers.
        priority: of the request.
        temperature: in place of the settings'.
        seed: of the sampling.

    Raises:
        llm_service.errors.ModelError: nothing can be asked at all.
    """
    started = time.monotonic()
    reply, failure = None, None
    try:
        reply = client.ask(
            list(messages),
            max_tokens=settings.max_tokens,
            deadline_s=settings.deadline_s,
            schema=schema,
            role=role,
            adapter=adapter,
            priority=priority,
            temperature=settings.temperature if temperature is None else temperature,
            seed=seed,
        )
    except (DeadlineExceeded, Refused) as error:
        failure = error
    return Answer(reply, failure, time.monotonic() - started)
