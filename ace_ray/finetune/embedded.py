"""`ace llm build-embedded`: labels -> gate and seed files -> training -> model card, each stage resumable.

labels  replays on training and validation scenarios (grid, CPUs; `labelling.generate`)
plant   episodes with a planted decision for the critic, from the labels (grid, CPUs; `planted_files.plant_all`)
files   held-out pivotal decisions for the gate, salvageable ones that may seed the refinement queue
train   tokenizer and model (torch alone; on another machine: `python -m ace_ray.finetune.embedded_train`)
card    README.md of the model: recipe, seeds, loss curve and the figures that were measured

Prompts change: the stage `describe` writes the texts of a label folder anew without a replay, and does files and card.
Gate and seed files age with the decision engine (`label_age`). The stage `decisions` makes them anew in one go: it
labels for them alone, into a folder of its own, until there are enough, and then does files and card.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from ace_ray.config.grid import GridSettings
from ace_ray.finetune.card import card
from ace_ray.finetune.decision_files import FILES, write_decision_files
from ace_ray.finetune.label_files import pack

log = logging.getLogger(__name__)
Stage = Literal["labels", "plant", "files", "train", "card", "all", "decisions", "describe"]


def build_embedded(
    labels: Path,
    out: Path,
    grid: GridSettings,
    *,
    stage: Stage = "all",
    processes: int = 2,
    label_minutes: float | None = None,
    train_minutes: float | None = None,
    device: str = "cpu",
    say: Callable[[str], None] = log.info,
) -> None:
    """Run one stage, or all in turn.

    Args:
        labels: label folder; labelling goes on where it stopped.
        out: model folder.
        grid: environment, data and comparison of the labels.
        processes: labelling and planting processes.
        label_minutes: time for labelling or planting; None labels for an hour (`all`), until there is enough
            (`decisions`), or until interrupted (`labels`), and plants in all there is.
        train_minutes: time after which training stops where it is.
        device: 'cpu' or 'cuda', for training.
        say: gets one line a result.

    Raises:
        DataError: the label folder was begun under another plan or by another engine; too few decisions for the files;
            a card without a training.
    """
    if stage in ("labels", "all", "decisions"):
        from ace_ray.finetune.labelling import generate
        from ace_ray.finetune.labels import LabelPlan

        if stage == "all" and label_minutes is None:
            label_minutes = 60.0
        alone = stage == "decisions"
        plan = LabelPlan.for_decision_files(grid) if alone else LabelPlan(grid)
        counts = generate(labels, plan, processes=processes, minutes=label_minutes, until_enough=alone)
        pack(labels)
        say(
            f"{counts['states']} states of {counts['episodes']} episodes in {counts['hours']:.2f} h: "
            f"{counts['states_per_process_hour']:.0f} states an hour and process; in {labels} now "
            f"{counts['pivotal']} pivotal decisions for the gate, {counts['salvageable']} salvageable ones"
        )
    if stage in ("plant", "all"):
        from ace_ray.finetune.planted_files import plant_all

        episodes = plant_all(labels, grid, processes=processes, minutes=label_minutes)
        pack(labels)
        say(f"{episodes} episodes with a planted decision in {labels}")
    if stage == "describe":
        from ace_ray.finetune.labelling import redescribe

        say(f"described {redescribe(labels)} decisions of {labels} anew")
        pack(labels)
    if stage in ("files", "all", "decisions", "describe"):
        least = [file.enough for file in FILES] if stage == "decisions" else (1, 1)
        gates, seeds = write_decision_files(labels, out, least)
        say(f"{gates} held-out pivotal decisions for the gate, {seeds} salvageable ones for the queue in {out}")
    if stage in ("train", "all"):
        from ace_ray.finetune.embedded_model import ModelShape
        from ace_ray.finetune.embedded_train import Recipe, build

        record = build(labels, out, Recipe(), ModelShape(), device, minutes=train_minutes, resume=True)
        say(f"trained {record['parameters'] / 1e6:.1f} M weights in {record['seconds'] / 60:.1f} min")
    if stage in ("card", "all", "decisions", "describe"):
        (out / "README.md").write_text(card(out))
        say(f"wrote {out / 'README.md'}")
