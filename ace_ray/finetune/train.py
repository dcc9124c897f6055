"""LoRA by peft on examples of chat and reply: an adapter directory that the service can load."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ace_ray.config.files import replacing
from ace_ray.config.refine import FinetuneSettings
from ace_ray.finetune.examples import Example
from llm_service.chat import prompt_text
from llm_service.errors import ModelError

Encode = Callable[[Sequence[dict[str, str]], str], tuple[list[int], int]]
"""Chat and reply to token ids and the length of the prompt: `encode_chat` of one tokenizer."""

IGNORE = -100
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
    template: Mapping[str, Any] | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> TrainReport:
    """Train a LoRA adapter of all linear layers with the loss on the replies alone (`settings.objective`).

    Args:
        base: Hugging Face model directory.
        examples: shuffled here; each is seen once. For `dpo` each needs a worse reply.
        settings: objective, rank, alpha, lr, batch, seed.
        out: directory that gets `adapter_config.json` and `adapter_model.safetensors`; replaced if there.
        device: 'cpu' or 'cuda'.
        template: arguments of the chat template, as the model is served with (`engine.chat_template_kwargs`).
        progress: called with (step, steps, loss).

    Raises:
        llm_service.errors.ModelError: the base model cannot be loaded.
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
            "set llm.engine.model to a Hugging Face model directory, or build the embedded model",
        ) from error
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=0.0,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(plain, config)
    encode = partial(encode_chat, tokenizer, arguments=template)
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
        with torch.autocast(device, dtype=torch.bfloat16, enabled=bfloat16_pays(device)):
            loss = step_loss(model, encode, picked, settings, device)
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


def bfloat16_pays(device: str) -> bool:
    """Whether bfloat16 is quicker than float32 there.

    On a GPU it is, and on a CPU with AVX-512 (two thirds of the time); without, PyTorch emulates it at a fifth of the
    speed.
    """
    return device != "cpu" or "AVX512" in torch.backends.cpu.get_cpu_capability()


def _imitating(
    model: Any, encode: Encode, examples: Sequence[Example], settings: FinetuneSettings, device: str
) -> torch.Tensor:
    """Cross-entropy of the replies."""
    return reply_loss(model.get_base_model(), _batch(encode, [(e, e.reply) for e in examples], device))


def _preferring(
    model: Any, encode: Encode, examples: Sequence[Example], settings: FinetuneSettings, device: str
) -> torch.Tensor:
    """Preference of better replies to worse ones against the base model, plus the cross-entropy of the better ones.

    Without the second part both likelihoods sink, and with them the form of the replies (Pang et al. 2024).
    """
    pairs = [(e, e.reply) for e in examples] + [(e, e.worse) for e in examples]
    batch = _batch(encode, pairs, device)
    with torch.no_grad(), model.disable_adapter():
        reference = reply_logprobs(model.get_base_model(), batch)
    policy = reply_logprobs(model.get_base_model(), batch)
    tokens = (batch["labels"][: len(examples)] != IGNORE).sum()
    imitation = -policy[: len(examples)].sum() / tokens
    return preference_loss(policy, reference, settings.dpo_beta) + imitation


def _batch(encode: Encode, pairs: Sequence[tuple[Example, str]], device: str) -> dict[str, torch.Tensor]:
    rows = [encode(example.messages, reply) for example, reply in pairs]
    return {name: tensor.to(device) for name, tensor in collate(rows).items()}


def _pace(step: int, steps: int) -> float:
    """Share of the step size: up over the first tenth, then down to nothing, in straight lines."""
    rise = max(1, steps // 10)
    return min((step + 1) / rise, (steps - step) / max(1, steps - rise))


def _save(model: Any, out: Path, base: str) -> None:
    """Write the adapter's folder, whole or not at all."""
    with replacing(out) as part:
        model.save_pretrained(part, safe_serialization=True)
        for file in part.iterdir():
            if file.name not in _KEEP:  # peft's README template says nothing of this adapter
                file.unlink()
        config = part / _KEEP[0]  # peft writes the path that the base model had here; the manifest has its fingerprint
        config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": base}, indent=2))


def encode_chat(
    tokenizer: Any, messages: Sequence[dict[str, str]], reply: str, arguments: Mapping[str, Any] | None = None
) -> tuple[list[int], int]:
    """Token ids of chat and reply (with its end token), and the number of those that belong to the prompt.

    The prompt is rendered by the tokenizer's own chat template, exactly as the service renders it with the same
    arguments (`engine.chat_template_kwargs`).
    """
    prompt = prompt_text(tokenizer, messages, arguments or {})
    head = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    tail = tokenizer(reply + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
    return [*head, *tail], len(head)


def collate(rows: Sequence[tuple[list[int], int]]) -> dict[str, torch.Tensor]:
    """Right-padded `ids` [B, T], `labels` [B, T] (-100 on prompt and padding), `prompt` [B, T] (True on the prompt)."""
    length = max(len(ids) for ids, _ in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    labels = torch.full((len(rows), length), IGNORE)
    prompt = torch.zeros(len(rows), length, dtype=torch.bool)
    for b, (row, head) in enumerate(rows):
        ids[b, : len(row)] = torch.tensor(row)
        labels[b, head : len(row)] = torch.tensor(row[head:])
        prompt[b, 1:head] = True
    return {"ids": ids, "labels": labels, "prompt": prompt}


def reply_logprobs(model: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """[B] log-probability of each row's reply, the sum over its tokens; memory as in `reply_loss`."""
    body, head = getattr(model, model.base_model_prefix), model.get_output_embeddings()
    hidden = body(input_ids=batch["ids"]).last_hidden_state[:, :-1]
    labels = batch["labels"][:, 1:]
    keep = labels != IGNORE
    each = -torch.nn.functional.cross_entropy(head(hidden[keep]).float(), labels[keep], reduction="none")
    return each.new_zeros(len(labels)).index_add(0, keep.nonzero()[:, 0], each)


def preference_loss(policy: torch.Tensor, reference: torch.Tensor, beta: float) -> torch.Tensor:
    """Direct preference optimisation (Rafailov et al. 2023, eq. 7), mean over pairs.

    `-log sigmoid(beta * ((policy_b - reference_b) - (policy_w - reference_w)))` of the better (b) and worse (w) reply.

    Args:
        policy, reference: [2B] log-probabilities of replies, first the better ones, then the worse, in the same order.
        beta: weight of the penalty for leaving the reference.
    """
    better, worse = (policy - reference).chunk(2)
    return -torch.nn.functional.logsigmoid(beta * (better - worse)).mean()


def reply_loss(model: Any, batch: dict[str, torch.Tensor], prompt_weight: float = 0.0) -> torch.Tensor:
    """Mean cross-entropy over the reply's tokens, plus `prompt_weight` times that over the prompt's.

    Padding stands on the right and attention is causal, so no mask is needed. Logits are computed only where they
    count: with a vocabulary of 150,000 the others would take most of the memory.
    """
    body, head = getattr(model, model.base_model_prefix), model.get_output_embeddings()
    hidden = body(input_ids=batch["ids"]).last_hidden_state[:, :-1]
    labels = batch["labels"][:, 1:]
    keep = labels != IGNORE
    loss = torch.nn.functional.cross_entropy(head(hidden[keep]).float(), labels[keep])
    if prompt_weight:
        keep = batch["prompt"][:, 1:]
        loss = loss + prompt_weight * torch.nn.functional.cross_entropy(
            head(hidden[keep]).float(), batch["ids"][:, 1:][keep]
        )
    return loss
