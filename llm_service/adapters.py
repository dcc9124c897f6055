"""Adapter versions on disk: identity, manifest, verification.

A version is a directory `<role>-v<N>` that never changes once written: `adapter_config.json` and
`adapter_model.safetensors` as peft writes them, and `manifest.json` with their hashes, the rank and the fingerprint of
the base model. `AdapterRef.sha256` is the hash of the manifest, so the reference that travels with a request pins every
byte of what answers it.
"""

import hashlib
import json
import os
import re
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm_service.errors import AdapterError, ModelError

MANIFEST = "manifest.json"
CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
_FILES = (CONFIG, WEIGHTS)
_FORMAT = 1
_SAMPLE = 1 << 20  # bytes read at each end of a large weight file for the fingerprint


@dataclass(frozen=True)
class AdapterRef:
    """Identity of one adapter version.

    Attributes:
        role: 'actor', 'critic', ...
        version: 1, 2, ...; 0 is the base model and never an adapter.
        path: absolute directory, visible to every replica.
        sha256: hash of its manifest.json.
    """

    role: str
    version: int
    path: str
    sha256: str

    @property
    def name(self) -> str:
        return f"{self.role}-v{self.version}"


def version_dir(adapters_dir: Path | str, role: str, version: int) -> Path:
    """Where version `version` of `role` lies inside a run's `adapters/`."""
    return Path(adapters_dir) / f"{role}-v{version}"


def next_version(adapters_dir: Path | str, role: str) -> int:
    """One more than the highest version of `role` on disk, published or refused."""
    found = [
        int(match[1])
        for entry in (Path(adapters_dir).iterdir() if Path(adapters_dir).is_dir() else ())
        if (match := re.fullmatch(rf"{re.escape(role)}-v(\d+)", entry.name))
    ]
    return max(found, default=0) + 1


def model_fingerprint(model_dir: Path | str) -> str:
    """Hash that tells base models apart: config, tokenizer, and name, size, head and tail of every weight file.

    Whole files would take a minute for a 15 GB model; the head of a safetensors file holds every tensor's name, shape
    and place.
    """
    model_dir = Path(model_dir)
    digest = hashlib.sha256()
    for name in ("config.json", "tokenizer.json"):
        path = model_dir / name
        if path.is_file():
            digest.update(name.encode() + path.read_bytes())
    for path in sorted(model_dir.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}".encode())
        with path.open("rb") as file:
            digest.update(file.read(_SAMPLE))
            file.seek(max(0, size - _SAMPLE))
            digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


def write_manifest(
    directory: Path | str, *, role: str, version: int, base_model: Path | str, extra: Mapping[str, Any] | None = None
) -> AdapterRef:
    """Seal a directory that peft wrote as version `version` of `role`.

    Args:
        extra: whatever else belongs to the version (data, seed, scores); kept under "extra".

    Returns:
        The reference to publish.

    Raises:
        AdapterError: a file is missing, or the weights are torn or not finite numbers.
    """
    directory = Path(directory).resolve()
    for name in _FILES:
        if not (directory / name).is_file():
            raise AdapterError(
                f"adapter {directory}: {name} is missing", "save the adapter with peft before sealing it"
            )
    check_weights(directory / WEIGHTS)
    config = json.loads((directory / CONFIG).read_text())
    manifest = {
        "format": _FORMAT,
        "role": role,
        "version": version,
        "base_model": model_fingerprint(base_model),
        "base_model_name": Path(base_model).name,
        "rank": config["r"],
        "files": {
            name: {"bytes": (directory / name).stat().st_size, "sha256": _sha256(directory / name)} for name in _FILES
        },
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "extra": dict(extra or {}),
    }
    write_atomically(directory / MANIFEST, json.dumps(manifest, indent=1))
    return AdapterRef(role, version, str(directory), _sha256(directory / MANIFEST))


def read_manifest(directory: Path | str) -> dict[str, Any]:
    """The manifest of a version.

    Raises:
        AdapterError: there is none, or it is not JSON.
    """
    path = Path(directory) / MANIFEST
    try:
        manifest = json.loads(path.read_text())
    except FileNotFoundError:
        raise AdapterError(f"adapter {directory}: {MANIFEST} is missing", "seal it with write_manifest") from None
    except (OSError, ValueError) as error:
        raise AdapterError(f"adapter {directory}: {MANIFEST} cannot be read ({error})") from None
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise AdapterError(
            f"adapter {directory}: {MANIFEST} has an unknown format", "publish it again with this version"
        )
    return manifest


def reference(directory: Path | str) -> AdapterRef:
    """The reference of a sealed directory."""
    manifest = read_manifest(directory)
    directory = Path(directory).resolve()
    return AdapterRef(manifest["role"], manifest["version"], str(directory), _sha256(directory / MANIFEST))


def verify(ref: AdapterRef, *, base_model: str, max_rank: int) -> dict[str, Any]:
    """Check a version before an engine sees it.

    Args:
        base_model: fingerprint of the engine's base model.
        max_rank: largest rank that the engine takes.

    Returns:
        The manifest.

    Raises:
        AdapterError: naming the version and what is wrong with it.
    """
    directory = Path(ref.path)
    if not directory.is_dir():
        raise AdapterError(
            f"adapter {ref.name}: directory {directory} is missing", "is the run folder visible from here?"
        )
    manifest = read_manifest(directory)
    if _sha256(directory / MANIFEST) != ref.sha256:
        raise AdapterError(f"adapter {ref.name}: {MANIFEST} is not the published one (hash differs)")
    if (manifest["role"], manifest["version"]) != (ref.role, ref.version):
        raise AdapterError(f"adapter {ref.name}: its manifest is of {manifest['role']}-v{manifest['version']}")
    for name in _FILES:
        entry, path = manifest["files"][name], directory / name
        if not path.is_file():
            raise AdapterError(f"adapter {ref.name}: {name} is missing")
        if path.stat().st_size != entry["bytes"] or _sha256(path) != entry["sha256"]:
            raise AdapterError(f"adapter {ref.name}: {name} is torn (size or hash differs from the manifest)")
    check_weights(directory / WEIGHTS)
    if manifest["base_model"] != base_model:
        raise AdapterError(
            f"adapter {ref.name}: made for another base model ({manifest['base_model_name']}, "
            f"{manifest['base_model'][:8]} instead of {base_model[:8]})"
        )
    if manifest["rank"] > max_rank:
        raise AdapterError(
            f"adapter {ref.name}: rank {manifest['rank']} is above {max_rank}",
            "raise engine.max_lora_rank or train a smaller rank",
        )
    return manifest


def check_weights(path: Path) -> None:
    """Raise `AdapterError` where an adapter's file is torn, or a weight is NaN or infinite: it would answer noise."""
    import torch  # NumPy knows no bfloat16
    from safetensors import safe_open

    check_safetensors(path, AdapterError)
    with safe_open(path, "pt") as file:
        broken = [name for name in file.keys() if not torch.isfinite(file.get_tensor(name)).all()]  # noqa: SIM118
    if broken:
        raise AdapterError(
            f"{path}: {len(broken)} tensors hold values that are not finite numbers, {broken[0]} among them",
            "its training diverged: train again with a lower step size (finetune.lr)",
        )


def check_safetensors(path: Path, error: type[ModelError] = ModelError) -> None:
    """Raise `error` unless the file is as long as its header says: what a broken copy or download looks like."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > size:
                raise ValueError("the header is truncated")
            header = json.loads(file.read(length))
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
    except (ValueError, KeyError, struct.error) as cause:
        raise error(f"{path}: not a whole safetensors file ({cause})", "copy or download it again") from None
    if 8 + length + end != size:
        raise error(f"{path}: torn, {size} bytes instead of {8 + length + end}", "copy or download it again")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Replace a text file so that a reader sees the old or the new one, whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
