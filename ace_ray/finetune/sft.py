"""Tuning on chats: token ids, batches, the loss of the reply and of preferences; for any causal LM and tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

IGNORE = -100


def encode_chat(tokenizer: Any, messages: Sequence[dict[str, str]], reply: str) -> tuple[list[int], int]:
    """Token ids of chat and reply (with its end token), and the number of those that belong to the prompt.

    The prompt is rendered by the tokenizer's own chat template, exactly as the service renders it.
    """
    prompt = tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True)
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
        beta: how dear it is to leave the reference.
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
