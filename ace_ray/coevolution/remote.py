"""Calls on the replay actor from the driver: our own errors as they were raised, and patience while it is restarted."""

import time
from typing import Any

import ray

from ace_ray.config.errors import AceError, WorkerError
from llm_service.errors import LLMServiceError

RESTART_SECONDS = 120.0
OWN = (AceError, LLMServiceError)


def get(ref: ray.ObjectRef | list[ray.ObjectRef]) -> Any:
    """`ray.get`, but an error of ours raised remotely comes without Ray's wrapping: a user reads its message alone."""
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, OWN):
            raise error.cause from None
        raise


def ask(replay: ray.actor.ActorHandle, method: str, *args: Any) -> Any:
    """Calls a method of the replay actor; waits while Ray restarts it (it restores itself from its shards).

    Raises:
        WorkerError: It is gone for good.
        AceError, LLMServiceError: What it raised itself, such as a full disk.
    """
    until = time.monotonic() + RESTART_SECONDS
    while True:
        try:
            return get(getattr(replay, method).remote(*args))
        except ray.exceptions.ActorUnavailableError as error:
            problem: Exception = error
        except ray.exceptions.RayActorError as error:
            raise own_error(error) or _gone(error) from error
        if time.monotonic() > until:
            raise _gone(problem) from problem
        time.sleep(0.5)


def own_error(error: ray.exceptions.RayActorError) -> AceError | LLMServiceError | None:
    """Our own error with which an actor's constructor failed; None where it died otherwise."""
    first = error.args[0] if error.args else None
    cause = first.cause if isinstance(first, ray.exceptions.RayTaskError) else None
    return cause if isinstance(cause, OWN) else None


def _gone(error: Exception) -> WorkerError:
    return WorkerError(f"the replay actor died: {error}", "resume the run: what was sealed is kept")
