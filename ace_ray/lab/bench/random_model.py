"""Models and adapters of random weights, for measurements: as fast as trained ones of the same shape."""

import json
import shutil
from pathlib import Path

from llm_service.adapters import AdapterRef, version_dir, write_manifest
from llm_service.settings import EMBEDDED

SIZES: dict[str, dict[str, int]] = {
    "10M": {
        "hidden_size": 384,
        "intermediate_size": 1024,
        "num_hidden_layers": 6,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
    },
    "100M": {
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 16,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
    },
    "0.5B": {  # Qwen2.5-0.5B's shape, with its vocabulary
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 151_936,
    },
}
"""Qwen2 configurations by their number of parameters; the vocabulary is the embedded model's where none is named."""


def random_model(size: str, directory: Path) -> Path:
    """Write a Qwen2 model of random weights with the embedded model's tokenizer.

    Args:
        size: a key of SIZES.
        directory: to make.
    """
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    own = json.loads((EMBEDDED / "config.json").read_text())
    kept = ("vocab_size", "max_position_embeddings", "eos_token_id", "pad_token_id", "bos_token_id")
    config = Qwen2Config(**{name: own[name] for name in kept} | SIZES[size], tie_word_embeddings=True)
    torch.manual_seed(0)
    directory.mkdir(parents=True)
    Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(directory)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(EMBEDDED / name, directory / name)
    return directory


def random_adapter(model: Path, adapters_dir: Path, rank: int) -> AdapterRef:
    """Seal a LoRA adapter on all linear layers that changes the weights at random."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(model, dtype="auto")
    tuned = get_peft_model(base, LoraConfig(r=rank, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, weights in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.01)
    directory = version_dir(adapters_dir, "actor", 1)
    tuned.save_pretrained(directory)
    return write_manifest(directory, role="actor", version=1, base_model=model)
