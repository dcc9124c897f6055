"""What can be known before half a minute of engine start: each problem is one line that names what to fix."""

import json
from pathlib import Path

from llm_service.adapters import check_safetensors, model_fingerprint, verify
from llm_service.chat import prompt_text
from llm_service.errors import ModelError, Rejected, first_line
from llm_service.machine import available_memory
from llm_service.published import PublishedVersions
from llm_service.settings import EngineSettings

_PROCESS_GIB = 1.3  # frontend and engine process with vLLM and torch imported, measured
_GIB = 1 << 30


def check_model(settings: EngineSettings) -> Path:
    """The model's directory, when it can be served.

    Raises:
        ModelError: directory, config, tokenizer or weights are missing or torn, or the context is too long for it; it
            has no chat template, or one that does not take the chats of a refinement; an adapter that ships with it is
            torn, of another model or of too high a rank.
    """
    directory = settings.model_dir()
    if not directory.is_dir():
        remedy = (
            "run: ace llm build-embedded" if settings.model == "embedded" else "set engine.model to a model directory"
        )
        raise ModelError(f"model directory {directory} is missing", remedy)
    try:
        config = json.loads((directory / "config.json").read_text())
    except FileNotFoundError:
        raise ModelError(
            f"{directory} has no model: config.json is missing", "set engine.model to a model directory"
        ) from None
    except ValueError as error:
        raise ModelError(
            f"{directory / 'config.json'} is not JSON ({error})", "copy or download the model again"
        ) from None
    if not any((directory / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise ModelError(f"{directory} has no tokenizer", "copy or download the model again")
    for path in _weight_files(directory):
        check_safetensors(path)
    positions = config.get("max_position_embeddings")
    if positions is not None and settings.max_model_len > positions:
        raise ModelError(
            f"engine.max_model_len={settings.max_model_len}, but {directory.name} was made for {positions} tokens",
            f"set engine.max_model_len to {positions} or less",
        )
    _check_template(directory, settings)
    shelf = settings.shipped()
    for ref in PublishedVersions(shelf).all().values() if shelf else ():
        verify(ref, base_model=model_fingerprint(directory), max_rank=settings.max_lora_rank)
    return directory


def check_memory(settings: EngineSettings, directory: Path) -> None:
    """Raise `ModelError` when weights, KV cache and processes do not fit into what is free (device=cpu)."""
    if settings.device != "cpu":
        return  # vLLM checks the GPU's memory itself, by gpu_memory_utilization
    weights = sum(path.stat().st_size for path in directory.glob("*.safetensors")) / _GIB
    if settings.versions == "merged":
        weights *= 2  # while a version is merged, a second copy is in memory
    need = weights + settings.kv_cache_gib + _PROCESS_GIB
    left = available_memory()
    free = float("inf") if left is None else left / _GIB
    if need > free:
        raise ModelError(
            f"not enough memory for {directory.name}: {need:.1f} GiB needed (weights {weights:.1f}, "
            f"engine.kv_cache_gib {settings.kv_cache_gib:g}, processes {_PROCESS_GIB:g}), {free:.1f} GiB free",
            "lower engine.kv_cache_gib, take a smaller model, or free memory",
        )


def _check_template(directory: Path, settings: EngineSettings) -> None:
    """Render a chat of every role that is used; needs no engine."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(directory)
    except Exception as error:  # whatever a torn file makes of itself in the tokenizers' own code
        raise ModelError(
            f"{directory}: its tokenizer cannot be loaded: {first_line(error)}", "copy or download the model again"
        ) from None
    if not getattr(tokenizer, "chat_template", None):
        raise ModelError(f"{directory} has no chat template", "use an instruct model, or add chat_template.jinja")
    chat = [{"role": role, "content": f"the {role}"} for role in ("system", "user", "assistant", "user")]
    try:
        prompt_text(tokenizer, chat, settings.chat_template_kwargs)
    except Rejected as error:
        raise ModelError(f"{directory}: {error.problem}", "use an instruct model, or change its template") from None


def _weight_files(directory: Path) -> list[Path]:
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        missing = [name for name in names if not (directory / name).is_file()]
        if missing:
            raise ModelError(f"{directory}: weight file {missing[0]} is missing", "copy or download the model again")
        return [directory / name for name in names]
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{directory} has no weights (*.safetensors)", "copy or download the model again")
    return files
