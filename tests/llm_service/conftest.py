"""One tiny model and two adapters that speak recognisably, made once."""

from pathlib import Path

import pytest

from llm_service.adapters import AdapterRef
from llm_service.settings import EngineSettings
from tests.llm_service.tiny_model import make_adapter, make_tiny_model

ALPHA, BRAVO = "alpha alpha alpha", "bravo bravo bravo"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny_settings(tiny_model: Path) -> EngineSettings:
    return EngineSettings(
        model=str(tiny_model),
        max_model_len=512,
        kv_cache_gib=0.125,
        max_num_seqs=16,
        max_loras=2,
        max_queued=24,
        adapters="lora",
    )


@pytest.fixture(scope="module")
def adapters_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run") / "adapters"


@pytest.fixture(scope="module")
def alpha(tiny_model: Path, adapters_dir: Path) -> AdapterRef:
    """Version 1 of the actor: answers ALPHA, whatever it is asked."""
    return make_adapter(tiny_model, adapters_dir, "actor", 1, ALPHA)


@pytest.fixture(scope="module")
def bravo(tiny_model: Path, adapters_dir: Path) -> AdapterRef:
    """Version 2 of the actor: answers BRAVO."""
    return make_adapter(tiny_model, adapters_dir, "actor", 2, BRAVO)
