"""`ace llm build-embedded`: labels -> gate and seed files -> training -> model card, each stage resumable.

labels  replays on training and validation scenarios (grid, CPUs; `labelling.generate`)
plant   episodes with a planted decision for the critic, from the labels (grid, CPUs; `planted_files.plant_all`)
files   held-out pivotal decisions for the gate, salvageable ones that may seed the refinement queue
train   tokenizer and model (torch alone; on another machine: `python -m ace_ray.lab.embedded.train`)
critic  the critic's adapter, which ships with the model (`critic_adapter`; torch and peft alone)
card    README.md of the model: recipe, seeds, loss curve and the figures that were measured

Prompts change: the stage `describe` writes the texts of a label folder anew without a replay, and does files and card.
Gate and seed files age with the decision engine (`label_age`). The stage `replay` needs no labels: it replays their
decisions with the present engine, drops those that no longer belong there, and does the card (minutes). Where too few
are left, the stage `decisions` makes them anew in one go: it labels for them alone, into a folder of its own, until
there are enough, and then does files and card (hours).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from ace_ray.config.grid import GridSettings
from ace_ray.lab.embedded.card import card
from ace_ray.lab.embedded.decision_files import FILES, write_decision_files
from ace_ray.lab.embedded.label_files import pack

log = logging.getLogger(__name__)
Stage = Literal["labels", "plant", "files", "train", "critic", "card", "all", "decisions", "describe"]


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
        from ace_ray.lab.embedded.labelling import generate
        from ace_ray.lab.embedded.labels import LabelPlan

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
        from ace_ray.lab.embedded.planted_files import plant_all

        episodes = plant_all(labels, grid, processes=processes, minutes=label_minutes)
        pack(labels)
        say(f"{episodes} episodes with an injected mistake in {labels}")
    if stage == "describe":
        from ace_ray.lab.embedded.labelling import redescribe

        say(f"described {redescribe(labels)} decisions of {labels} anew")
        pack(labels)
    if stage in ("files", "all", "decisions", "describe"):
        least = [file.enough for file in FILES] if stage == "decisions" else (1, 1)
        gates, seeds = write_decision_files(labels, out, least)
        say(f"{gates} held-out pivotal decisions for the gate, {seeds} salvageable ones for the queue in {out}")
    if stage in ("train", "all"):
        from ace_ray.lab.embedded.model import ModelShape
        from ace_ray.lab.embedded.train import Recipe, build

        record = build(labels, out, Recipe(), ModelShape(), device, minutes=train_minutes, resume=True)
        say(f"trained {record['parameters'] / 1e6:.1f} M weights in {record['seconds'] / 60:.1f} min")
    if stage in ("critic", "all"):
        critic_embedded(out, labels, device=device, say=say)
    elif stage in ("card", "decisions", "describe"):
        _write_card(out, say)


def critic_embedded(
    out: Path, labels: Path | None, *, device: str = "cpu", say: Callable[[str], None] = log.info
) -> None:
    """The stage `critic`: the critic's adapter of the model folder `out`, and its card.

    Args:
        out: model folder.
        labels: label folder whose planted episodes are learned from too; None: made-up ones alone.
        device: 'cpu' or 'cuda'.
        say: gets one line a result.

    Raises:
        llm_service.errors.ModelError: there is no model in `out`.
    """
    from ace_ray.lab.embedded.critic_adapter import CriticRecipe, build_critic

    record = build_critic(out, labels, CriticRecipe(), device)
    say(
        f"trained the critic's adapter in {record['training']['seconds'] / 60:.1f} min; of "
        f"{record['made_up']['episodes']} made-up episodes {record['made_up']['exact']:.0%} of its replies are exact"
    )
    _write_card(out, say)


def replay_embedded(
    out: Path, grid: GridSettings, *, processes: int = 2, say: Callable[[str], None] = log.info
) -> None:
    """The stage `replay`: gate and seed files of the model folder `out`, replayed anew, and its card.

    Args:
        out: model folder; its plan stays, under the settings of `grid`.
        grid: environment, data and comparison of the replays.
        processes: replaying processes.
        say: gets one line a result.

    Raises:
        DataError: a file is missing, or too few of its decisions still belong there; nothing was written.
        GridMismatchError: the decisions are of another grid.
    """
    from ace_ray.lab.embedded.labelling import replay_decisions

    for file, (before, left) in zip(FILES, replay_decisions(out, grid, processes=processes), strict=True):
        say(f"{left} of {before} decisions in {out / file.name} are still {file.mark}, the others were dropped")
    _write_card(out, say)


def _write_card(out: Path, say: Callable[[str], None]) -> None:
    (out / "README.md").write_text(card(out))
    say(f"wrote {out / 'README.md'}")
