"""Adapter versions of a run: sealed under `adapters/<role>-vN/`, published only once the gate accepted them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llm_service.adapters import AdapterRef, next_version, version_dir, write_manifest
from llm_service.protocol import LLM


def new_version(adapters: Path, role: str) -> tuple[int, Path]:
    """Number and directory of the next version; refused ones keep theirs, so a number means one adapter for ever."""
    version = next_version(adapters, role)
    return version, version_dir(adapters, role, version)


def seal(directory: Path, role: str, version: int, base: Path, extra: dict[str, Any]) -> AdapterRef:
    """Write the manifest (hashes, base model, rank, data, seed, losses); the directory never changes afterwards."""
    return write_manifest(directory, role=role, version=version, base_model=base, extra=extra)


def publish(client: LLM, ref: AdapterRef) -> None:
    """Make `ref` the version that its role is served with; running refiners pick it up at their next request.

    Raises:
        llm_service.errors.LLMServiceError: the version was refused or its warm-up failed; the former one stays.
    """
    client.publish(ref)
