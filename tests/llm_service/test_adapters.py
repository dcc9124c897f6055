"""Versions on disk: sealed, verified, refused with the reason."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from llm_service.adapters import (
    AdapterRef,
    check_safetensors,
    model_fingerprint,
    next_version,
    reference,
    verify,
    version_dir,
    write_manifest,
)
from llm_service.errors import AdapterError, ModelError

pytestmark = pytest.mark.unit


def _base(directory: Path, value: float = 1.0) -> Path:
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    save_file({"w": np.full((4, 4), value, np.float32)}, directory / "model.safetensors")
    return directory


def _version(adapters: Path, base: Path, version: int = 1, rank: int = 8) -> AdapterRef:
    directory = version_dir(adapters, "actor", version)
    directory.mkdir(parents=True)
    (directory / "adapter_config.json").write_text(json.dumps({"r": rank}))
    save_file({"a": np.arange(64, dtype=np.float32)}, directory / "adapter_model.safetensors")
    return write_manifest(directory, role="actor", version=version, base_model=base, extra={"seed": 3})


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return _base(tmp_path / "base")


@pytest.fixture
def ref(tmp_path: Path, base: Path) -> AdapterRef:
    return _version(tmp_path / "adapters", base)


def _verify(ref: AdapterRef, base: Path, max_rank: int = 16) -> dict:
    return verify(ref, base_model=model_fingerprint(base), max_rank=max_rank)


def test_a_sealed_version_verifies_and_keeps_its_extras(ref: AdapterRef, base: Path) -> None:
    manifest = _verify(ref, base)
    assert (manifest["rank"], manifest["extra"]) == (8, {"seed": 3})
    assert reference(ref.path) == ref


def test_sealing_without_weights_is_refused(tmp_path: Path, base: Path) -> None:
    (tmp_path / "actor-v1").mkdir()
    with pytest.raises(AdapterError, match="adapter_config.json is missing"):
        write_manifest(tmp_path / "actor-v1", role="actor", version=1, base_model=base)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_neither_sealed_nor_served(
    tmp_path: Path, base: Path, ref: AdapterRef, value: float
) -> None:
    path = Path(ref.path) / "adapter_model.safetensors"
    sound = path.read_bytes()
    save_file({"a": np.arange(64, dtype=np.float32), "b": np.array([1, value], np.float16)}, path)
    with pytest.raises(AdapterError, match=r"1 tensors .* not finite numbers, b among them[^$]*finetune.lr"):
        write_manifest(ref.path, role="actor", version=1, base_model=base)
    manifest = Path(ref.path) / "manifest.json"  # sealed by an earlier version, which did not look
    entry = {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(content | {"files": content["files"] | {path.name: entry}}))
    with pytest.raises(AdapterError, match="not finite numbers"):
        _verify(reference(ref.path), base)
    path.write_bytes(sound)
    write_manifest(ref.path, role="actor", version=1, base_model=base)


def test_missing_directory_names_the_version(tmp_path: Path, base: Path) -> None:
    with pytest.raises(AdapterError, match=r"actor-v9: directory .* is missing"):
        _verify(AdapterRef("actor", 9, str(tmp_path / "actor-v9"), "0"), base)


def test_cut_weights_are_torn(ref: AdapterRef, base: Path) -> None:
    path = Path(ref.path) / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(AdapterError, match="torn"):
        _verify(ref, base)


def test_one_flipped_bit_is_torn(ref: AdapterRef, base: Path) -> None:
    path = Path(ref.path) / "adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(AdapterError, match="torn"):
        _verify(ref, base)


def test_a_rewritten_manifest_is_not_the_published_one(ref: AdapterRef, base: Path) -> None:
    path = Path(ref.path) / "manifest.json"
    path.write_text(path.read_text().replace('"rank": 8', '"rank": 4'))
    with pytest.raises(AdapterError, match="hash differs"):
        _verify(ref, base)


def test_a_version_of_another_base_model_is_refused(tmp_path: Path, ref: AdapterRef) -> None:
    with pytest.raises(AdapterError, match="another base model"):
        _verify(ref, _base(tmp_path / "other", value=2.0))


def test_a_rank_above_the_engines_is_refused(tmp_path: Path, base: Path) -> None:
    with pytest.raises(AdapterError, match="rank 32 is above 16"):
        _verify(_version(tmp_path / "adapters", base, rank=32), base)


def test_a_reference_to_another_version_number_is_refused(ref: AdapterRef, base: Path) -> None:
    with pytest.raises(AdapterError, match="its manifest is of actor-v1"):
        _verify(AdapterRef(ref.role, 2, ref.path, ref.sha256), base)


def test_next_version_counts_every_directory_of_the_role(tmp_path: Path, base: Path) -> None:
    adapters = tmp_path / "adapters"
    assert next_version(adapters, "actor") == 1
    _version(adapters, base, version=3)
    (adapters / "critic-v7").mkdir()
    assert next_version(adapters, "actor") == 4


@settings(max_examples=60, deadline=None)
@given(keep=st.integers(min_value=0, max_value=10_000))
def test_every_truncation_of_a_weight_file_is_noticed(tmp_path_factory: pytest.TempPathFactory, keep: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "model.safetensors"
    save_file({"w": np.arange(300, dtype=np.float32)}, path)
    whole = path.read_bytes()
    check_safetensors(path)
    path.write_bytes(whole[: keep % len(whole)])
    with pytest.raises(ModelError):
        check_safetensors(path)
