"""Trains the embedded model from label files: `python -m ace_ray.lab.embedded.train --labels DIR --out DIR`.

Self-contained: torch, transformers, tokenizers and numpy (and pyarrow, or labels packed as JSON lines). No Grid2Op,
no Ray.

Recipe. Three stages in one schedule: brief lessons (made-up cases of a few lines, without the rules: a third of the
length, so looking up is learned cheaply; a share of them are strings of numbers and words to copy; some batches of them
come in the later stages too, or they are forgotten), lessons on made-up cases of many grids (reading prompts, writing
replies), then labelled decisions of real scenarios with a rest of made-up ones; verified labels (with outcomes)
and bootstrap labels (least danger) are drawn at a set ratio. Every example is made afresh: other order, other bad
example, other rounds. The loss is that of the reply, plus `Recipe.prompt_loss` times that of the prompt. AdamW, linear
warm-up and cosine, bf16 autocast. Examples depend on the seed and their index alone, so the number of loader processes
does not change what is learned.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.utils.data import DataLoader, Dataset

from ace_ray.config.files import replacing
from ace_ray.finetune.examples import Example, LabelledCase, Variation, make_example
from ace_ray.finetune.train import bfloat16_pays, collate, encode_chat, reply_loss
from ace_ray.lab.embedded.critic_examples import LabelledEpisode, critic_example, synthetic_episode
from ace_ray.lab.embedded.evaluate import evaluate_model
from ace_ray.lab.embedded.label_files import read_cases, read_episodes, read_meta
from ace_ray.lab.embedded.model import ModelShape, new_model, save_model, train_tokenizer
from ace_ray.lab.embedded.synthetic import SyntheticCases, copying_lesson
from llm_service.published import SHIPPED

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """All that the weights depend on, besides the labels; the defaults take half an hour on three CPU cores.

    What the shipped weights were trained with stands in their `training.json`.
    """

    examples: int = 15_000
    batch: int = 16
    lr: float = 1e-3
    weight_decay: float = 0.1
    warmup: float = 0.03
    brief: float = 0.28
    brief_rest: float = 0.2
    copying: float = 0.2
    lessons: float = 0.7
    rest: float = 0.3
    verified: float = 0.5
    critic: float = 0.15
    critic_synthetic: float = 0.5
    prompt_loss: float = 0.1
    vocabulary: int = 3072
    seed: int = 0


@dataclass(frozen=True)
class Sources:
    """What examples are made of; any part but the made-up cases may be empty."""

    verified: list[LabelledCase]
    bootstrap: list[LabelledCase]
    episodes: list[LabelledEpisode]
    critic_system: str


class Examples(Dataset):
    """Example i of the schedule, made from (seed, i) alone."""

    def __init__(self, sources: Sources, recipe: Recipe, tokenizer: Any = None) -> None:
        self.sources, self.recipe, self.tokenizer = sources, recipe, tokenizer

    def __len__(self) -> int:
        return self.recipe.examples

    def example(self, i: int) -> Example:
        """The i-th example as text."""
        r, s = self.recipe, self.sources
        rng = np.random.default_rng((r.seed, i))
        # one role and one length a batch: prompts of two lengths in one would be padded to the longer
        batch = np.random.default_rng((r.seed, 1, i // r.batch))
        critic, mixed_in, copy = batch.random(3) < (r.critic, r.brief_rest, r.copying)
        brief = i < r.brief * r.examples or mixed_in
        if brief and copy:
            return copying_lesson(rng)
        if critic:
            made_up = brief or not s.episodes or rng.random() < r.critic_synthetic
            drawn = synthetic_episode(rng, brief) if made_up else s.episodes[int(rng.integers(len(s.episodes)))]
            whole = critic_example(drawn, s.critic_system)
            return Example(whole.messages[1:], whole.reply) if brief else whole
        if brief:
            whole = make_example(SyntheticCases(rng).draw(brief=True), rng, Variation())
            return Example(whole.messages[1:], whole.reply)
        real = i >= r.lessons * r.examples and rng.random() >= r.rest
        pools = [p for p in (s.verified, s.bootstrap) if p]
        if not real or not pools:
            return make_example(SyntheticCases(rng).draw(), rng, Variation())
        pool = pools[0] if len(pools) == 1 or rng.random() < r.verified else pools[1]
        return make_example(pool[int(rng.integers(len(pool)))], rng, Variation())

    def __getitem__(self, i: int) -> tuple[list[int], int]:
        example = self.example(i)
        return encode_chat(self.tokenizer, example.messages, example.reply)


def learning_rate(step: int, steps: int, recipe: Recipe) -> float:
    """Linear warm-up, then cosine to a tenth."""
    warm = max(1, int(recipe.warmup * steps))
    if step < warm:
        return recipe.lr * (step + 1) / warm
    return recipe.lr * (0.1 + 0.45 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))))


def train(
    sources: Sources,
    recipe: Recipe,
    shape: ModelShape,
    *,
    device: str,
    workers: int = 0,
    minutes: float | None = None,
    checkpoint: Path | None = None,
) -> tuple[Any, Any, list[dict[str, float]]]:
    """Train from scratch (or go on from `checkpoint`); returns model, tokenizer and the loss curve.

    A run that `minutes` cuts short keeps its schedule: the curve's last entry says how far it came.
    """
    torch.manual_seed(recipe.seed)
    text_source = Examples(sources, recipe)
    indices = np.linspace(0, recipe.examples - 1, 1500).astype(int)
    texts = [t for e in map(text_source.example, indices) for t in (*(m["content"] for m in e.messages), e.reply)]
    tokenizer = train_tokenizer(texts, recipe.vocabulary)
    model = new_model(tokenizer, shape).to(device)
    decay = [p for p in model.parameters() if p.dim() > 1]
    flat = [p for p in model.parameters() if p.dim() <= 1]
    groups = [{"params": decay, "weight_decay": recipe.weight_decay}, {"params": flat, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, 0.95))
    steps, first = recipe.examples // recipe.batch, 0
    curve: list[dict[str, float]] = []
    if checkpoint is not None and checkpoint.is_file():
        first, curve = _load_checkpoint(checkpoint, model, optimiser)
        log.info("going on from step %d", first)
    loader = DataLoader(
        Examples(sources, recipe, tokenizer),
        batch_sampler=_Batches(first, steps, recipe.batch),
        collate_fn=collate,
        num_workers=workers,
        prefetch_factor=8 if workers else None,
    )
    begun, told, tokens, losses = time.monotonic(), time.monotonic(), 0, []
    step = first
    for step, batch in enumerate(loader, start=first):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, steps, recipe)
        moved = {k: v.to(device, non_blocking=True) for k, v in batch.items()}
        with torch.autocast(device, dtype=torch.bfloat16, enabled=bfloat16_pays(device)):
            loss = reply_loss(model, moved, recipe.prompt_loss)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        tokens += batch["ids"].numel()
        losses.append(loss.detach())
        over = minutes is not None and time.monotonic() - begun > 60 * minutes
        if over or time.monotonic() - told > 15 or step + 1 == steps:
            seconds = time.monotonic() - begun
            curve.append(
                {"step": step + 1, "loss": round(float(torch.stack(losses).mean()), 4), "seconds": round(seconds, 1)}
            )
            log.info(
                "step %d of %d, loss %.4f, %.0f tokens/s, about %.1f min left",
                *(step + 1, steps, curve[-1]["loss"], tokens / seconds),
                seconds / (step + 1 - first) * (steps - step - 1) / 60,
            )
            told, losses = time.monotonic(), []
            if checkpoint is not None:
                _save_checkpoint(checkpoint, model, optimiser, step + 1, curve)
        if over:
            break
    return model, tokenizer, curve


def _save_checkpoint(path: Path, model: Any, optimiser: Any, step: int, curve: list[dict[str, float]]) -> None:
    """Weights and AdamW moments as safetensors, the rest as its JSON metadata; no pickle."""
    tensors = {f"model.{name}": tensor.clone() for name, tensor in model.state_dict().items()}
    for i, state in optimiser.state_dict()["state"].items():
        tensors.update({f"optimiser.{i}.{name}": tensor.clone() for name, tensor in state.items()})
    with replacing(path) as part:
        save_file(tensors, part, metadata={"step": str(step), "curve": json.dumps(curve)})


def _load_checkpoint(path: Path, model: Any, optimiser: Any) -> tuple[int, list[dict[str, float]]]:
    """Inverse of `_save_checkpoint`; returns the next step and the curve so far."""
    with safe_open(path, framework="pt", device=str(next(model.parameters()).device)) as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    model.load_state_dict({k.removeprefix("model."): t for k, t in tensors.items() if k.startswith("model.")})
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimiser."):
            _, i, key = name.split(".")
            moments.setdefault(int(i), {})[key] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
    return int(metadata["step"]), json.loads(metadata["curve"])


class _Batches:
    """Batches of consecutive example indices from step `first` on."""

    def __init__(self, first: int, steps: int, batch: int) -> None:
        self.first, self.steps, self.batch = first, steps, batch

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first, self.steps):
            yield list(range(step * self.batch, (step + 1) * self.batch))

    def __len__(self) -> int:
        return self.steps - self.first


def load_sources(folder: Path) -> Sources:
    """The training split of a label folder."""
    cases = read_cases(folder, "train")
    return Sources(
        verified=[c for c in cases if c.outcomes],
        bootstrap=[c for c in cases if not c.outcomes],
        episodes=read_episodes(folder, "train"),
        critic_system=read_meta(folder)["critic_system"],
    )


def main(argv: list[str] | None = None) -> None:
    """Command line of the training stage."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # loader processes are forked
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parser = argparse.ArgumentParser(prog="python -m ace_ray.lab.embedded.train", description=__doc__)
    parser.add_argument("--labels", type=Path, required=True, help="label folder")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    parser.add_argument("--workers", type=int, default=0, help="processes that make examples")
    parser.add_argument("--minutes", type=float, default=None, help="stop training after this time")
    parser.add_argument("--held-out", type=int, default=1000, help="held-out decisions to measure at most")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    for name, value in asdict(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value, help=f"default {value}")
    for name, value in asdict(ModelShape()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=value, help=f"default {value}")
    args = parser.parse_args(argv)
    values = vars(args)
    recipe = Recipe(**{k: values[k] for k in asdict(Recipe())})
    shape = ModelShape(**{k: values[k] for k in asdict(ModelShape())})
    build(args.labels, args.out, recipe, shape, args.device, args.workers, args.minutes, args.resume, args.held_out)


def build(
    labels: Path,
    out: Path,
    recipe: Recipe,
    shape: ModelShape,
    device: str,
    workers: int = 0,
    minutes: float | None = None,
    resume: bool = False,
    most_held_out: int = 1000,
) -> dict[str, Any]:
    """Train, measure on the validation labels, write the model folder; returns (and writes) `training.json`."""
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.safetensors"
    if not resume:
        checkpoint.unlink(missing_ok=True)
    sources = load_sources(labels)
    log.info(
        "%d verified, %d bootstrap cases, %d episodes",
        len(sources.verified),
        len(sources.bootstrap),
        len(sources.episodes),
    )
    begun = time.monotonic()
    model, tokenizer, curve = train(
        sources, recipe, shape, device=device, workers=workers, minutes=minutes, checkpoint=checkpoint
    )
    seconds = time.monotonic() - begun
    held_out = [c for c in read_cases(labels, "validation") if c.outcomes][:most_held_out]
    figures = evaluate_model(model, tokenizer, held_out, device) if held_out else {}
    size = save_model(model, tokenizer, out)
    shutil.rmtree(out / SHIPPED, ignore_errors=True)  # adapters of the weights that these replace
    record = {
        "recipe": asdict(recipe),
        "shape": asdict(shape),
        "parameters": sum(p.numel() for p in model.parameters()),
        "weights_bytes": size,
        "vocabulary": len(tokenizer),
        "labels": {
            "verified": len(sources.verified),
            "bootstrap": len(sources.bootstrap),
            "episodes": len(sources.episodes),
            "validation": len(held_out),
            "meta": read_meta(labels),
        },
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
        "seconds": round(seconds, 1),
        "curve": curve,
        "validation": figures,
    }
    (out / "training.json").write_text(json.dumps(record, indent=1))
    checkpoint.unlink(missing_ok=True)
    log.info("wrote %s (%.1f MB of weights)", out, size / 1e6)
    return record


if __name__ == "__main__":
    main()
