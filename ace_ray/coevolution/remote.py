"""Results of remote calls, with our own errors as they were raised."""

from typing import Any

import ray

from ace_ray.config.errors import AceError


def get(ref: ray.ObjectRef | list[ray.ObjectRef]) -> Any:
    """`ray.get`, but an `AceError` raised remotely comes without Ray's wrapping: a user reads its message alone."""
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, AceError):
            raise error.cause from None
        raise
