"""Every profile, and every set of profiles that a page names, gives a run whose model can be served.

No GPU is needed: vLLM's own configuration checks run as on one, with stubs in place of its CUDA kernels.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ace_ray.coevolution.refinement import check_lengths
from ace_ray.config.load import load_settings
from ace_ray.config.paths import find_profile, shipped_profiles
from ace_ray.config.run import RunSettings
from llm_service.preflight import check_model
from tests.llm_service.tiny_model import make_tiny_model

REPO = Path(__file__).resolve().parents[2]
PAGES = [REPO / "README.md", *(REPO / "docs").glob("*.md"), REPO / "cluster" / "README.md", REPO / "Makefile"]
HEADERS = [*(REPO / "configs").rglob("*.yaml")]
CONTEXT = {"Qwen2": 32_768, "Qwen2.5": 32_768, "Qwen3": 40_960}
"""Context of the models that the pages name, as their own config.json has it."""

VLLM_ON_CUDA = """
import importlib.machinery, json, sys, types
from vllm.model_executor.models.registry import ModelRegistry
for architecture in ("Qwen2ForCausalLM", "Qwen3ForCausalLM"):
    ModelRegistry._try_inspect_model_cls(architecture)  # in the CPU build, which has the kernels that this imports
for name in ("vllm._C_stable_libtorch", "vllm._C", "vllm._moe_C"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)
import torch, vllm.platforms
from vllm.platforms.cuda import NonNvmlCudaPlatform
from vllm.platforms.interface import DeviceCapability

class Gpu(NonNvmlCudaPlatform):  # an H100, as far as the checks look
    get_device_capability = classmethod(lambda cls, device_id=0: DeviceCapability(9, 0))
    get_device_name = classmethod(lambda cls, device_id=0: "NVIDIA H100 80GB HBM3")
    get_device_total_memory = classmethod(lambda cls, device_id=0: 80 << 30)
    device_count = classmethod(lambda cls: 1)
    is_fully_connected = classmethod(lambda cls, ids: True)

vllm.platforms._current_platform = Gpu()
torch.cuda.device_count = lambda: 1
from vllm.engine.arg_utils import AsyncEngineArgs
from llm_service.engine import engine_arguments
from llm_service.settings import EngineSettings

for text in sys.stdin:
    settings = EngineSettings.model_validate_json(text)
    found = AsyncEngineArgs(**engine_arguments(settings, str(settings.model_dir()))).create_engine_config()
    lora = found.lora_config and found.lora_config.max_lora_rank
    print("made", json.dumps([found.device_config.device_type, found.model_config.max_model_len, lora]), flush=True)
"""


def named_together() -> dict[str, tuple[list[str], list[str]]]:
    """Command of a page -> (profiles, overrides); and each profile by itself."""
    found: dict[str, tuple[list[str], list[str]]] = {name: ([name], []) for name in shipped_profiles()}
    for page in PAGES + HEADERS:
        text = re.sub(r"\s*\\?\n#?\s*", " ", page.read_text(encoding="utf-8"))  # a command may go over several lines
        for command in re.findall(r"--config [\w./]+(?: --config [\w./]+)*(?: [\w.]+=\S+)*", text):
            overrides = [o.rstrip(" `,.;:)") for o in re.findall(r"[\w.]+=\S+", command)]
            found[f"{page.name}: {command.strip()}"] = (re.findall(r"--config ([\w./]*\w)", command), overrides)
    return {
        label: both
        for label, both in found.items()
        if not any(p.isupper() for p in both[0])  # FILE stands for any
    }


NAMED = named_together()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models with random weights in place of those that the pages name, with the context that those have."""
    folder = tmp_path_factory.mktemp("models")
    return {
        family: make_tiny_model(
            folder / family, max_positions=context, architecture="qwen3" if family == "Qwen3" else "qwen2"
        )
        for family, context in CONTEXT.items()
    }


def settings_of(label: str, models: dict[str, Path]) -> RunSettings:
    profiles, overrides = NAMED[label]
    if "llm/qwen2.5" in profiles and not any(o.startswith("llm.engine.model=") for o in overrides):
        overrides = [*overrides, "llm.engine.model=/models/Qwen2.5-7B-Instruct"]
    if "llm/qwen3" in profiles and not any(o.startswith("llm.engine.model=") for o in overrides):
        overrides = [*overrides, "llm.engine.model=/models/Qwen3-4B"]
    if profiles == ["ace_paper"]:  # names no model: the paper's
        overrides = [*overrides, "llm.engine.model=/models/Qwen2-7B-Instruct", "llm.engine.max_model_len=8192"]
    placed = [re.sub(r"/models/(Qwen[\d.]*)-\S+", lambda m: str(models[m[1]]), text) for text in overrides]
    return load_settings(profiles, placed)


@pytest.mark.unit
def test_the_pages_name_sets_of_profiles() -> None:
    together = [profiles for profiles, _ in NAMED.values() if len(profiles) > 1]
    assert ["one_gpu", "llm/qwen2.5", "ace_paper"] in together and ["one_gpu", "llm/qwen3"] in together
    for profiles, _ in NAMED.values():
        assert all(find_profile(profile) for profile in profiles)


@pytest.mark.unit
def test_the_model_of_every_documented_set_of_profiles_can_be_served(models: dict[str, Path]) -> None:
    for label in NAMED:
        settings = settings_of(label, models)
        if not settings.llm.endpoint.url:
            check_model(settings.llm.engine)
            check_lengths(settings)


@pytest.mark.vllm
def test_vllm_takes_every_documented_gpu_profile(models: dict[str, Path]) -> None:
    seen: list[str] = []
    for label in NAMED:
        engine = settings_of(label, models).llm.engine
        if engine.device == "cuda" and engine.model_dump_json() not in seen:
            seen.append(engine.model_dump_json())
    assert len(seen) >= 4
    done = subprocess.run(
        [sys.executable, "-c", VLLM_ON_CUDA], input="\n".join(seen), capture_output=True, text=True, timeout=300
    )
    made = [json.loads(line[5:]) for line in done.stdout.splitlines() if line.startswith("made ")]
    wanted = [["cuda", json.loads(text)["max_model_len"], json.loads(text)["max_lora_rank"]] for text in seen]
    assert made == wanted, done.stderr[-3000:]
