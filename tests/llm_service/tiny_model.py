"""A model of the shipped model's architecture, small enough to make in a test, and adapters that speak recognisably."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from llm_service.adapters import AdapterRef, version_dir, write_manifest

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_CORPUS = (
    "the grid is overloaded on line 5 and substation 16 splits into two buses",
    '{"analysis": "line 5 is at 1.2 of its limit", "action": {"candidate": 3}}',
    "alpha bravo charlie delta echo foxtrot 0 1 2 3 4 5 6 7 8 9",
)


def make_tiny_model(
    directory: Path,
    *,
    hidden: int = 64,
    layers: int = 2,
    seed: int = 0,
    max_positions: int = 1024,
    architecture: Literal["qwen2", "qwen3"] = "qwen2",
) -> Path:
    """Write a random Qwen model with its own byte-level BPE tokenizer and chat template; under a megabyte."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import (
        PreTrainedTokenizerFast,
        Qwen2Config,
        Qwen2ForCausalLM,
        Qwen3Config,
        Qwen3ForCausalLM,
    )

    directory.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=384,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=max_positions
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(directory)

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    config_of, model_of = {
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
        "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    }[architecture]
    config = config_of(
        vocab_size=len(fast),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 32,
        num_key_value_heads=hidden // 32,
        head_dim=32,
        max_position_embeddings=max_positions,
        initializer_range=0.2,  # logits far enough apart that an adapter can choose among them
        tie_word_embeddings=True,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
        bos_token_id=None,
        dtype="bfloat16",
    )
    model_of(config).to(torch.bfloat16).save_pretrained(directory)
    return directory


def make_adapter(
    model_dir: Path,
    adapters_dir: Path,
    role: str,
    version: int,
    reply: str,
    prompts: Sequence[str] = ("who are you?", "ready?", "state of the grid"),
    *,
    rank: int = 8,
    steps: int = 120,
) -> AdapterRef:
    """Train a LoRA adapter that answers every prompt with `reply`, and seal it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)  # the machine is shared: threads that wait for each other cost minutes
    torch.manual_seed(version)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    base = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    model = get_peft_model(
        base, LoraConfig(r=rank, lora_alpha=4 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    rows, labels = [], []
    for prompt in prompts:
        head = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], add_generation_prompt=True, tokenize=False
        )
        before = tokenizer(head)["input_ids"]
        after = tokenizer(reply)["input_ids"] + [tokenizer.eos_token_id]
        rows.append(before + after)
        labels.append([-100] * len(before) + after)
    width = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows])
    target = torch.tensor([row + [-100] * (width - len(row)) for row in labels])
    optimiser = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=1e-2)
    for _ in range(steps):
        loss = model(input_ids=ids, labels=target).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    if loss.item() > 0.05:
        raise AssertionError(f"the adapter did not learn its reply: loss {loss.item():.3f}")
    directory = version_dir(adapters_dir, role, version)
    model.save_pretrained(directory)
    return write_manifest(directory, role=role, version=version, base_model=model_dir)


def change_manifest(ref: AdapterRef, **fields: object) -> AdapterRef:
    """Rewrite fields of a sealed manifest and return the reference that fits it again."""
    from llm_service.adapters import reference

    path = Path(ref.path) / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return reference(ref.path)
