"""The embedded model: a small Qwen2-architecture causal LM with its own byte-level BPE.

Numbers are what the prompts are about, so every integer below 1,000 is one token, with and without a leading blank: a
model this small compares two loadings as two symbols, not as digit strings. They are added tokens, because
transformers gives every model of this architecture Qwen2's own splitting of text, which takes digits one by one,
whatever tokenizer.json says. Prompts write larger numbers with a comma before each group of three.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import AddedToken, pre_tokenizers, trainers
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

START, END, PAD = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_NUMBER = re.compile(r" ?\d+")
_SMALL_INTEGERS = 1000
_ROPE_THETA = 1e6  # Qwen2's own: half of the angles hardly turn within a prompt
# the induction head at its start, chosen by what it copies before any training
_SHARP = 8.0  # of the heads that look one and two tokens back
_MATCH = 6.0**0.5  # of the head that looks for a like place
_LOUD = 0.2  # of what it carries, where an embedding has 0.02
_CERTAIN = 4.0  # gain of the output
_QUIET = 0.3  # of all other layers, so that they do not drown it


@dataclass(frozen=True)
class ModelShape:
    """Sizes of the network; about 2.2 million weights with a vocabulary of 3,072."""

    hidden: int = 192
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    intermediate: int = 512
    positions: int = 4096


def train_tokenizer(texts: Iterable[str], vocabulary: int = 4096) -> Qwen2Tokenizer:
    """A byte-level BPE over `texts` with the chat template; any text can be encoded, whatever it was trained on.

    Args:
        vocabulary: most tokens in all, the 2,000 numbers included.
    """
    backend = Qwen2Tokenizer()._tokenizer  # for its splitting of text
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - 2 * _SMALL_INTEGERS,
        special_tokens=[PAD, START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator((_NUMBER.sub(" ", text) for text in texts), trainer)
    learned = json.loads(backend.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=learned["vocab"], merges=[tuple(pair) for pair in learned["merges"]], eos_token=END, pad_token=PAD
    )
    numbers = [text for i in range(_SMALL_INTEGERS) for text in (f"{i}", f" {i}")]
    tokenizer.add_tokens([AddedToken(text, normalized=False) for text in numbers])
    tokenizer.add_special_tokens({"additional_special_tokens": [START]})
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def new_model(tokenizer: Qwen2Tokenizer, shape: ModelShape) -> Qwen2ForCausalLM:
    """An untrained model; seed torch before.

    A quarter of the embedding of an integer starts as sines and cosines of its value, wavelengths from 4 to 4,000: that
    23 lies between 22 and 24 need not be learned for each number from the few prompts in which it stands. And it starts
    with an induction head (`_read_by_induction`) where it has two layers and two key-value heads for that, since its
    replies repeat what the prompt says.
    """
    config = Qwen2Config(
        vocab_size=-(-len(tokenizer) // 64) * 64,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        intermediate_size=shape.intermediate,
        max_position_embeddings=shape.positions,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": _ROPE_THETA},
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids(END),
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
    )
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        waves = _waves(shape.hidden // 4).to(model.dtype)
        for text in (str, " {}".format):
            tokens = tokenizer.convert_tokens_to_ids([text(i) for i in range(_SMALL_INTEGERS)])
            model.get_input_embeddings().weight[tokens, : waves.shape[1]] = config.initializer_range * waves
        if shape.layers > 1 and shape.kv_heads > 1:
            _read_by_induction(model)
    return model


def _read_by_induction(model: Qwen2ForCausalLM) -> None:
    """Lets the model repeat what it reads: '... A B C ... A B' is followed by C before anything was learned.

    Two heads of the first layer note the last token and the one before it in dimensions kept free for that; a head of
    the second looks for the place whose notes are the present token and its predecessor, and carries the token there
    to the output (induction heads: Olsson et al. 2022, arXiv:2209.11895). From a start without it this model found none
    in 20 million tokens of lessons: it wrote replies, but could not copy a number. Everything stays trainable.
    Positions are seen by the fast half of the rotary angles, contents by the slow half, which hardly turn within a
    prompt.
    """
    config = model.config
    heads, size = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    half = size // 2
    angles = _ROPE_THETA ** (-torch.arange(half) / half)
    fast = torch.nonzero(angles > 0.02)[:, 0]
    slow = torch.nonzero(angles < 1.1e-3)[:, 0]
    note = len(slow)  # dimensions of a note
    own = config.hidden_size - 2 * note
    model.get_input_embeddings().weight[:, own:] = 0.0
    for layer in model.model.layers:
        layer.mlp.down_proj.weight.mul_(_QUIET)
        layer.self_attn.o_proj.weight.mul_(_QUIET)
    abridged = _orthonormal(note, own)
    first, second = (layer.self_attn for layer in model.model.layers[:2])
    for place, head in enumerate((0, heads // config.num_key_value_heads)):  # of two key-value heads
        q, k = (slice(i * size, (i + 1) * size) for i in (head, place))
        back = (place + 1) * angles[fast]
        first.q_proj.weight[q] *= 0.1
        first.k_proj.weight[k] *= 0.1
        first.k_proj.bias[k][fast] = _SHARP
        first.q_proj.bias[q][fast] = _SHARP * back.cos()
        first.q_proj.bias[q][half + fast] = -_SHARP * back.sin()
        first.v_proj.weight[k] = 0.0
        first.v_proj.weight[k][:note, :own] = abridged
        first.o_proj.weight[:, q] = 0.0
        at = own + place * note
        first.o_proj.weight[at : at + note, q][:, :note] = config.initializer_range * torch.eye(note)
    match = torch.cat([slow, half + slow])
    second.q_proj.weight[:size] = 0.0
    second.k_proj.weight[:size] = 0.0
    asked, noted = torch.zeros(2, 2 * note, config.hidden_size)
    asked[:note, :own], asked[note:, own : own + note] = abridged, torch.eye(note)
    noted[:, own:] = torch.eye(2 * note)
    second.q_proj.weight[match], second.k_proj.weight[match] = _MATCH * asked, _MATCH * noted
    carried = _orthonormal(size, own)
    second.v_proj.weight[:size] = 0.0
    second.v_proj.weight[:size, :own] = carried
    second.o_proj.weight[:, :size] = 0.0
    second.o_proj.weight[:own, :size] = _LOUD * carried.T
    model.model.norm.weight.fill_(_CERTAIN)


def _orthonormal(rows: int, columns: int) -> torch.Tensor:
    """[rows, columns] orthonormal rows in random directions."""
    return torch.linalg.qr(torch.randn(columns, rows))[0].T


def _waves(width: int) -> torch.Tensor:
    """[1000, width] sines and cosines of the integers, of variance 1."""
    lengths = torch.logspace(math.log10(4), math.log10(4 * _SMALL_INTEGERS), width // 2)
    angles = 2 * math.pi * torch.arange(_SMALL_INTEGERS)[:, None] / lengths
    return math.sqrt(2) * torch.cat([angles.sin(), angles.cos()], dim=1)


def save_model(model: Qwen2ForCausalLM, tokenizer: Qwen2Tokenizer, folder: Path) -> int:
    """Write bf16 weights, config, tokenizer and chat template; returns the size of the weights in bytes."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    return sum(file.stat().st_size for file in folder.glob("model*.safetensors"))
