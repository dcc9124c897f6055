"""Requests, replies, and the interface of everything that answers requests."""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from llm_service import errors
from llm_service.adapters import AdapterRef

Messages = Sequence[Mapping[str, str]]
"""Chat messages, [{'role': 'system'|'user'|'assistant', 'content': text}, ...]."""


class Priority(enum.IntEnum):
    """Order of service: lower is earlier."""

    PUBLISH = -10
    """The one token that a new version must answer before it is published."""
    FRESH = 0
    """A refinement of a decision that was just played, and the critic."""
    BACKFILL = 10
    """Seeded or old pending refinements."""
    EVALUATION = 20
    """Gates and evaluation."""


@dataclass(frozen=True)
class Request:
    """One request as it crosses to the engine; everything in it is plain data."""

    messages: tuple[dict[str, str], ...]
    max_tokens: int
    deadline_s: float
    schema: dict[str, Any] | None = None
    adapter: AdapterRef | None = None
    priority: int = Priority.FRESH
    temperature: float = 0.0
    seed: int | None = None


@dataclass(frozen=True)
class Reply:
    """What the model said, and who said it.

    Attributes:
        finish_reason: 'stop' (the model ended) or 'length' (cut at max_tokens: not to be trusted to parse).
        model: name of the base model: the last part of its directory, and eight digits of its fingerprint.
        role, version: of the adapter that answered, as the replica resolved it; None and 0 for the base model.
        queue_s, total_s: seconds until the engine scheduled the request, and until the reply, in the replica.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    reply_tokens: int
    model: str
    role: str | None = None
    version: int = 0
    queue_s: float = 0.0
    total_s: float = 0.0


_KINDS: dict[str, type[errors.LLMServiceError]] = {
    kind.__name__: kind
    for kind in (
        errors.ModelError,
        errors.AdapterError,
        errors.Refused,
        errors.Rejected,
        errors.RequestTooLarge,
        errors.ReplicaLost,
        errors.DeadlineExceeded,
    )
}


@dataclass(frozen=True)
class Failure:
    """An `LLMServiceError` as plain data."""

    kind: str
    problem: str
    remedy: str = ""

    @classmethod
    def of(cls, error: errors.LLMServiceError) -> "Failure":
        return cls(type(error).__name__, error.problem, error.remedy)

    def error(self) -> errors.LLMServiceError:
        return _KINDS.get(self.kind, errors.ModelError)(self.problem, self.remedy)


@dataclass(frozen=True)
class ReplicaReport:
    """What one replica says about itself."""

    pid: int
    node: str
    model: str
    fingerprint: str
    in_flight: int
    finished: int
    refused: int
    mean_batch: float
    versions: dict[str, int] = field(default_factory=dict)
    """Latest version served per role."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class LLM(Protocol):
    """What language/, rollout/ and finetune/ need of a language model; safe to call from several threads."""

    def ask(
        self,
        messages: Messages,
        *,
        max_tokens: int,
        deadline_s: float,
        schema: dict[str, Any] | None = None,
        role: str | None = None,
        adapter: AdapterRef | None = None,
        priority: int = Priority.FRESH,
        temperature: float = 0.0,
        seed: int | None = None,
    ) -> Reply:
        """Answer one chat.

        Args:
            schema: constant JSON schema that the reply must follow (strings bounded by `pattern`).
            role: whose published adapter answers ('actor', 'critic', ...); the base model where none is published.
            adapter: exactly this version instead (the gate asks unpublished ones).

        Raises:
            Refused, DeadlineExceeded, ModelError: see llm_service.errors.
        """
        ...

    def publish(self, ref: AdapterRef) -> None:
        """Make `ref` the version that its role is served with, after one request to it succeeded."""
        ...

    def current(self, role: str) -> AdapterRef | None:
        """The published version of a role."""
        ...
