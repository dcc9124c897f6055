"""The critic's adapter of the embedded model: `python -m ace_ray.lab.embedded.critic_adapter --base DIR --device cuda`.

The model itself learns the critic's words among the actor's lessons, and no more than those: it writes the form and
does not read which decisions stood behind. Roles are adapters of one base model, so what the critic lacks is a small
LoRA of its own that ships in the model's `adapters/`, laid out as a run's: a run begins with a copy
(llm_service.published).

Trained on made-up episodes, and on planted ones where a label folder is named. Needs torch, transformers, peft and
pydantic; no Grid2Op, no Ray.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ace_ray.config.refine import CriticSettings, FinetuneSettings
from ace_ray.finetune.examples import Example
from ace_ray.finetune.train import train_adapter
from ace_ray.lab.embedded.critic_examples import LabelledEpisode, critic_example, synthetic_episode
from ace_ray.lab.embedded.evaluate import local_replier
from ace_ray.lab.embedded.label_files import read_episodes
from ace_ray.language.critic import critic_system, parse_critic
from llm_service.adapters import version_dir, write_manifest
from llm_service.published import SHIPPED, PublishedVersions

log = logging.getLogger(__name__)
ROLE = "critic"
_HELD_OUT = 64


@dataclass(frozen=True)
class CriticRecipe:
    """All that the adapter depends on, besides the base model and the labels."""

    examples: int = 8_000
    batch: int = 8
    lr: float = 2e-3
    rank: int = 8
    alpha: int = 16
    planted: float = 0.3  # share of planted episodes, where there are any
    seed: int = 0


def critic_lessons(episodes: Sequence[LabelledEpisode], recipe: CriticRecipe) -> list[Example]:
    """`recipe.examples` chats with the reply that is right; example i depends on (seed, i) alone."""
    system = critic_system(CriticSettings())
    lessons = []
    for i in range(recipe.examples):
        rng = np.random.default_rng((recipe.seed, i))
        real = bool(episodes) and rng.random() < recipe.planted
        drawn = episodes[int(rng.integers(len(episodes)))] if real else synthetic_episode(rng)
        lessons.append(critic_example(drawn, system))
    return lessons


def build_critic(base: Path, labels: Path | None, recipe: CriticRecipe, device: str) -> dict[str, Any]:
    """Train, measure and seal `<base>/adapters/critic-v1`; one that is there is replaced.

    Args:
        base: Hugging Face model directory.
        labels: label folder whose planted episodes are learned from too; None: made-up ones alone.

    Returns:
        What the adapter's manifest says of it: recipe, losses, figures.

    Raises:
        llm_service.errors.ModelError: the base model cannot be loaded.
    """
    planted = read_episodes(labels, "train") if labels else []
    settings = FinetuneSettings(
        rank=recipe.rank, alpha=recipe.alpha, lr=recipe.lr, batch=recipe.batch, seed=recipe.seed
    )
    shelf = base / SHIPPED
    directory = version_dir(shelf, ROLE, 1)
    shelf.mkdir(exist_ok=True)

    def progress(step: int, steps: int, loss: float) -> None:
        if step % 20 == 0 or step == steps:
            log.info("step %d of %d, loss %.4f", step, steps, loss)

    report = train_adapter(base, critic_lessons(planted, recipe), settings, directory, device=device, progress=progress)
    record = {
        "recipe": asdict(recipe),
        "planted_episodes": len(planted),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
        "training": report.to_json(),
        "made_up": reading(base, directory, held_out(recipe.seed), device),
    }
    ref = write_manifest(directory, role=ROLE, version=1, base_model=base, extra=record)
    PublishedVersions(shelf).flip(ref)
    return record


def held_out(seed: int) -> list[LabelledEpisode]:
    """Made-up episodes that no recipe of this seed learns from."""
    return [synthetic_episode(np.random.default_rng((seed, 1, i))) for i in range(_HELD_OUT)]


def reading(base: Path, adapter: Path | None, episodes: Sequence[LabelledEpisode], device: str) -> dict[str, float]:
    """How well a model reads episodes, at temperature 0 and without a grammar.

    Returns:
        `episodes`, and the shares of replies that parse (`parsed`), that make exactly the edits of the episode
        (`exact`), and that lower the first of them where it is one to be lowered (`first_lowered`).
    """
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).to(device)
    if adapter is not None:
        model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    settings = CriticSettings()
    system = critic_system(settings)
    replies = local_replier(model.eval(), tokenizer, device)([critic_example(e, system).messages for e in episodes])
    parsed, exact, lowered = [], [], []
    for episode, text in zip(episodes, replies, strict=True):
        said = parse_critic(text, episode.keys, settings)
        wanted = [(episode.keys[number].step.id, level) for number, level in episode.edits]
        edits = [(edit.id, edit.level) for edit in said.edits]
        parsed.append(said.error is None)
        exact.append(edits == wanted)
        if wanted and wanted[0][1] < 0:
            lowered.append(any(id == wanted[0][0] and level < 0 for id, level in edits))
    return {
        "episodes": len(episodes),
        **{
            name: round(float(np.mean(values)), 4)
            for name, values in (("parsed", parsed), ("exact", exact), ("first_lowered", lowered))
        },
    }


def main(argv: list[str] | None = None) -> None:
    """Command line of the training, for a machine without the rest of the project's packages."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    parser = argparse.ArgumentParser(prog="python -m ace_ray.lab.embedded.critic_adapter", description=__doc__)
    parser.add_argument("--base", type=Path, required=True, help="model folder; the adapter goes into its adapters/")
    parser.add_argument("--labels", type=Path, default=None, help="label folder with planted episodes")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    for name, value in asdict(CriticRecipe()).items():
        parser.add_argument(f"--{name}", type=type(value), default=value, help=f"default {value}")
    args = vars(parser.parse_args(argv))
    recipe = CriticRecipe(**{name: args[name] for name in asdict(CriticRecipe())})
    record = build_critic(args["base"], args["labels"], recipe, args["device"])
    log.info("%s", record)


if __name__ == "__main__":
    main()
