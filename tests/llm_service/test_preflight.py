"""Bad models are named before half a minute of engine start."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from safetensors.numpy import save_file

from llm_service import preflight
from llm_service.adapters import write_manifest
from llm_service.errors import AdapterError, ModelError
from llm_service.published import SHIPPED, PublishedVersions
from llm_service.settings import EMBEDDED, EngineSettings, ServiceSettings

pytestmark = pytest.mark.unit


@pytest.fixture
def model(tmp_path: Path, tiny_model: Path) -> Path:
    """The tokenizer of a model, with weights that are only looked at."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2", "max_position_embeddings": 512}))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tiny_model / name, tmp_path)
    save_file({"w": np.zeros(1000, np.float32)}, tmp_path / "model.safetensors")
    return tmp_path


def _settings(model: Path, **fields: object) -> EngineSettings:
    return EngineSettings(**({"model": str(model), "max_model_len": 512} | fields))


def test_a_whole_model_passes(model: Path) -> None:
    assert preflight.check_model(_settings(model)) == model
    preflight.check_memory(_settings(model, kv_cache_gib=0.1), model)


def test_embedded_is_the_shipped_directory() -> None:
    assert EngineSettings().model_dir() == EMBEDDED


def test_a_misspelt_setting_is_an_error() -> None:
    with pytest.raises(ValidationError, match="max_lora"):
        ServiceSettings.model_validate({"engine": {"max_lora": 2}})


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"model directory {tmp_path / 'nowhere'} is missing"):
        preflight.check_model(_settings(tmp_path / "nowhere"))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_each_missing_part_is_named(model: Path, name: str) -> None:
    (model / name).unlink()
    with pytest.raises(ModelError, match="config.json|tokenizer|weights"):
        preflight.check_model(_settings(model))


def test_a_torn_tokenizer_is_named(model: Path) -> None:
    (model / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelError, match="tokenizer cannot be loaded"):
        preflight.check_model(_settings(model))


def test_torn_weights_are_named(model: Path) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"model.safetensors: torn, \d+ bytes instead of \d+"):
        preflight.check_model(_settings(model))


def test_a_missing_shard_is_named(model: Path) -> None:
    index = {"weight_map": {"w": "model-1.safetensors", "v": "model.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="model-1.safetensors is missing"):
        preflight.check_model(_settings(model))


def test_a_context_longer_than_the_models_is_named(model: Path) -> None:
    with pytest.raises(ModelError, match="max_model_len=600.*512"):
        preflight.check_model(_settings(model, max_model_len=600))


def test_too_little_memory_says_how_much_is_needed(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "available_memory", lambda: 2 << 30)
    with pytest.raises(ModelError, match=r"5\.3 GiB needed .*engine.kv_cache_gib 4.*2\.0 GiB free"):
        preflight.check_memory(_settings(model, kv_cache_gib=4), model)


def test_an_adapter_that_ships_with_the_model_is_checked_too(model: Path) -> None:
    directory = model / SHIPPED / "critic-v1"
    directory.mkdir(parents=True)
    (directory / "adapter_config.json").write_text('{"r": 8}')
    save_file({"w": np.zeros(64, np.float32)}, directory / "adapter_model.safetensors")
    PublishedVersions(model / SHIPPED).flip(write_manifest(directory, role="critic", version=1, base_model=model))
    assert preflight.check_model(_settings(model)) == model
    with (directory / "adapter_model.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(AdapterError, match=r"critic-v1: adapter_model.safetensors is torn"):
        preflight.check_model(_settings(model))
    preflight.check_model(_settings(model, adapters="off"))
