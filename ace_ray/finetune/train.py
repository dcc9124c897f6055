"""LoRA by peft on examples of chat and reply: an adapter directory that the service can load."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ace_ray.config.errors import ModelError
from ace_ray.config.refine import FinetuneSettings
from ace_ray.finetune.examples import Example
from ace_ray.finetune.sft import IGNORE, collate, encode_chat, preference_loss, reply_logprobs, reply_loss

_CLIP = 1.0
_KEEP = ("adapter_config.json", "adapter_model.safetensors")


@dataclass(frozen=True)
class TrainReport:
    """What a training did: examples seen, steps, mean loss of the first and the last tenth, seconds."""

    examples: int
    steps: int
    first_loss: float
    last_loss: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)


def train_adapter(
    base: Path,
    examples: Sequence[Example],
    settings: FinetuneSettings,
    out: Path,
    *,
    device: str = "cpu",
    progress: Callable[[int, int, float], None] | None = None,
) -> TrainReport:
    """Train a LoRA adapter of all linear layers with the loss on the replies alone (`settings.objective`).

    Args:
        base: Hugging Face model directory.
        examples: shuffled here; each is seen once. For `dpo` each needs a worse reply.
        settings: objective, rank, alpha, lr, batch, seed.
        out: directory that gets `adapter_config.json` and `adapter_model.safetensors`; replaced if there.
        device: 'cpu' or 'cuda'.
        progress: called with (step, steps, loss).

    Raises:
        ModelError: the base model cannot be loaded.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    begun = time.monotonic()
    torch.manual_seed(settings.seed)
    # The adapter's weights are float32 anywhere, so that small steps count; on a GPU the frozen base stays in bf16.
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    try:
        tokenizer = AutoTokenizer.from_pretrained(base)
        plain = AutoModelForCausalLM.from_pretrained(base, dtype=dtype).to(device)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the base model in {base} cannot be loaded: {str(error).splitlines()[0]}",
            "set language.model to a Hugging Face model directory, or build the embedded model",
        ) from error
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(plain, config)
    step_loss = _preferring if settings.objective == "dpo" else _imitating
    order = np.random.default_rng(settings.seed).permutation(len(examples))
    steps = -(-len(examples) // settings.batch)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trainable, lr=settings.lr, weight_decay=0.0)
    losses = []
    model.train()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = settings.lr * _pace(step, steps)
        picked = [examples[i] for i in order[step * settings.batch : (step + 1) * settings.batch]]
        with torch.autocast(device, dtype=torch.bfloat16):  # on the CPU in two thirds of the time
            loss = step_loss(model, tokenizer, picked, settings, device)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trainable, _CLIP)
        optimiser.step()
        losses.append(float(loss.detach()))
        if progress is not None:
            progress(step + 1, steps, losses[-1])
    _save(model, out, base.name)
    tenth = max(1, len(losses) // 10)
    return TrainReport(
        examples=len(examples),
        steps=steps,
        first_loss=round(float(np.mean(losses[:tenth])), 4),
        last_loss=round(float(np.mean(losses[-tenth:])), 4),
        seconds=round(time.monotonic() - begun, 2),
    )


def _imitating(
    model: Any, tokenizer: Any, examples: Sequence[Example], settings: FinetuneSettings, device: str
) -> torch.Tensor:
    """Cross-entropy of the replies."""
    return reply_loss(model.get_base_model(), _batch(tokenizer, [(e, e.reply) for e in examples], device))


def _preferring(
    model: Any, tokenizer: Any, examples: Sequence[Example], settings: FinetuneSettings, device: str
) -> torch.Tensor:
    """Preference of better replies to worse ones against the base model, plus the cross-entropy of the better ones.

    Without the second part both likelihoods sink, and with them the form of the replies (Pang et al. 2024).
    """
    pairs = [(e, e.reply) for e in examples] + [(e, e.worse) for e in examples]
    batch = _batch(tokenizer, pairs, device)
    with torch.no_grad(), model.disable_adapter():
        reference = reply_logprobs(model.get_base_model(), batch)
    policy = reply_logprobs(model.get_base_model(), batch)
    tokens = (batch["labels"][: len(examples)] != IGNORE).sum()
    imitation = -policy[: len(examples)].sum() / tokens
    return preference_loss(policy, reference, settings.dpo_beta) + imitation


def _batch(tokenizer: Any, pairs: Sequence[tuple[Example, str]], device: str) -> dict[str, torch.Tensor]:
    rows = [encode_chat(tokenizer, example.messages, reply) for example, reply in pairs]
    return {name: tensor.to(device) for name, tensor in collate(rows).items()}


def _pace(step: int, steps: int) -> float:
    """Share of the step size: up over the first tenth, then down to nothing, in straight lines."""
    rise = max(1, steps // 10)
    return min((step + 1) / rise, (steps - step) / max(1, steps - rise))


def _save(model: Any, out: Path, base: str) -> None:
    """Write the adapter beside `out` and move it there whole."""
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(part, safe_serialization=True)
    for file in part.iterdir():
        if file.name not in _KEEP:  # peft's README template says nothing of this adapter
            file.unlink()
    config = part / _KEEP[0]  # peft writes the path that the base model had here; the manifest has its fingerprint
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": base}, indent=2))
    shutil.rmtree(out, ignore_errors=True)
    part.replace(out)
