"""`ace llm build-embedded`: labels -> gate and seed files -> training -> model card, each stage resumable.

labels  replays on training and validation scenarios (grid, CPUs; `labels.generate`)
files   held-out pivotal decisions for the gate, salvageable ones that may seed the refinement queue
train   tokenizer and model (torch alone; on another machine: `python -m ace_ray.finetune.embedded_train`)
card    README.md of the model: recipe, seeds, loss curve and the figures that were measured
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from ace_ray.config.errors import DataError
from ace_ray.config.grid import GridSettings
from ace_ray.finetune.gate import GATE_FILE
from ace_ray.finetune.label_files import pack, read_meta, read_parquet, read_rows, write_rows
from ace_ray.finetune.seeds import SEED_FILE

log = logging.getLogger(__name__)
Stage = Literal["labels", "files", "train", "card", "all"]
STAGES: tuple[Stage, ...] = ("labels", "files", "train", "card", "all")
META_FILE = "labels.json"
_GATE_MOST = 128
_SEEDS_MOST = 96


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
        processes: labelling processes.
        label_minutes: time for labelling; None labels until interrupted, so `all` needs it.
        train_minutes: time after which training stops where it is.
        device: 'cpu' or 'cuda', for training.
        say: gets one line a result.
    """
    if stage in ("labels", "all"):
        from ace_ray.finetune.labels import LabelPlan, generate

        if stage == "all" and label_minutes is None:
            label_minutes = 60.0
        counts = generate(labels, LabelPlan(grid=grid), processes=processes, minutes=label_minutes)
        pack(labels)
        say(
            f"{counts['states']} states of {counts['episodes']} episodes, {counts['salvageable']} salvageable, "
            f"in {counts['hours']:.2f} h: {counts['states_per_process_hour']:.0f} states an hour and process"
        )
    if stage in ("files", "all"):
        gates, seeds = write_decision_files(labels, out)
        say(f"{gates} held-out pivotal decisions for the gate, {seeds} salvageable ones for the queue in {out}")
    if stage in ("train", "all"):
        from ace_ray.finetune.embedded_model import ModelShape
        from ace_ray.finetune.embedded_train import Recipe, build

        record = build(labels, out, Recipe(), ModelShape(), device, minutes=train_minutes, resume=True)
        say(f"trained {record['parameters'] / 1e6:.1f} M weights in {record['seconds'] / 60:.1f} min")
    if stage in ("card", "all"):
        (out / "README.md").write_text(card(out))
        say(f"wrote {out / 'README.md'}")


def write_decision_files(labels: Path, out: Path) -> tuple[int, int]:
    """Write gate and seed files of a label folder into a model folder; returns how many decisions each holds.

    Gate: pivotal decisions of validation scenarios, at most six a scenario. Seeds: salvageable ones of training
    scenarios, at most two a scenario. Both evenly over the scenarios in the order in which they were labelled.

    Raises:
        DataError: the labels hold no such decision.
    """
    rows = [row for row in read_rows(labels, "labels") if row["ids"]]
    gate = _spread([r for r in rows if r["split"] == "validation" and r["pivotal"]], 6)[:_GATE_MOST]
    seeds = _spread([r for r in rows if r["split"] == "train" and r["salvageable"]], 2)[:_SEEDS_MOST]
    if not gate or not seeds:
        raise DataError(
            f"the labels in {labels} hold {len(gate)} pivotal validation decisions and {len(seeds)} salvageable ones",
            "label more episodes",
        )
    out.mkdir(parents=True, exist_ok=True)
    write_rows(out / GATE_FILE, gate)
    write_rows(out / SEED_FILE, seeds)
    (out / META_FILE).write_text(json.dumps(read_meta(labels), indent=1))
    return len(gate), len(seeds)


def _spread(rows: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """At most `most` rows a scenario, first those that are the first of theirs."""
    turns: list[list[dict[str, Any]]] = [[] for _ in range(most)]
    seen: dict[str, int] = {}
    for row in rows:
        scenario = json.dumps(json.loads(row["snapshot"])["scenario"], sort_keys=True)
        turn = seen.get(scenario, 0)
        seen[scenario] = turn + 1
        if turn < most:
            turns[turn].append(row)
    return [row for turn in turns for row in turn]


def card(model: Path) -> str:
    """The model card, from what the other stages wrote down; nothing in it is typed by hand.

    Raises:
        DataError: the model was not trained here.
    """
    path = model / "training.json"
    if not path.is_file():
        raise DataError(f"{path} is missing", "run the train stage first")
    record = json.loads(path.read_text())
    labels, recipe, shape = record["labels"], record["recipe"], record["shape"]
    plan = labels["meta"].get("plan", {})
    files = {name: len(read_parquet(model / name)) for name in (GATE_FILE, SEED_FILE) if (model / name).is_file()}
    size = sum(file.stat().st_size for file in model.glob("model*.safetensors"))
    step = max(1, len(record["curve"]) // 12)
    curve = [row for i, row in enumerate(record["curve"]) if i % step == 0 or i == len(record["curve"]) - 1]
    lines = [
        "# The embedded model",
        "",
        f"A causal language model of the Qwen2 architecture with {record['parameters'] / 1e6:.2f} million weights "
        f"({size / 1e6:.1f} MB in bf16), trained from scratch by this project to propose actions on "
        "the 36-substation grid and to review rewards. It exists so that the whole loop runs without a download; it is "
        "no general language model, and any Hugging Face instruct model can take its place.",
        "",
        "## How it was made",
        "",
        f"- Tokenizer: byte-level BPE of {record['vocabulary']} tokens over the prompts; every integer below 1,000 is "
        "one token.",
        f"- Network: {shape['layers']} layers, width {shape['hidden']}, {shape['heads']} heads "
        f"({shape['kv_heads']} for keys and values), feed-forward {shape['intermediate']}, tied embeddings.",
        f"- Labels: {labels['verified']} decisions whose compared set was replayed over "
        f"{plan.get('grid', {}).get('compare', {}).get('horizon', '?')} steps, {labels['bootstrap']} decisions "
        f"labelled by the slot score alone, {labels['episodes']} episodes for the critic; all from training scenarios "
        f"(seed {plan.get('seed', '?')}). {labels['validation']} replayed decisions of validation scenarios were held "
        "out.",
        f"- Schedule: {recipe['examples']} examples (seed {recipe['seed']}); the first {recipe['lessons']:.0%} made-up "
        f"cases of many grids, then {1 - recipe['rest']:.0%} real ones, of which {recipe['verified']:.0%} replayed; "
        f"{recipe['critic']:.0%} are critic examples. Loss on the reply"
        + (f", and on the prompt at weight {recipe['prompt_loss']}" if recipe["prompt_loss"] else " only")
        + f"; AdamW, step size {recipe['lr']}, batch {recipe['batch']}, cosine.",
        f"- Run: {record['device']}, torch {record['torch']}, {record['seconds'] / 60:.1f} minutes, "
        f"{record['curve'][-1]['step'] if record['curve'] else 0} steps.",
        "",
        "| step | loss |",
        "| --- | --- |",
        *(f"| {row['step']} | {row['loss']} |" for row in curve),
        "",
        "## What it does on held-out decisions",
        "",
        "First-round replies without a grammar, at temperature 0. Survival regret: share of the 100 steps that the "
        "best replayed action survives, minus that of the proposal; a reply that names nothing usable counts as the "
        "worst action. `first` is the best slot score that is not the bad example, `random` the expected value over "
        "the other listed candidates. Pivotal: the listed actions do not share one fate.",
        "",
        *_figures(record["validation"]),
        "",
        "## Limits",
        "",
        "It knows one grid and one prompt. A fate depends on the controller that goes on after the action, so labels "
        "age when the decision engine, its settings or its proposal memory change: those of the training labels have "
        f"the settings' hash {labels['meta'].get('context', '?')}"
        + (f", those of the gate and seed files {read_context(model)}." if files else "."),
        "",
        "## Files",
        "",
        *(f"- `{name}`: {count} decisions with their replays." for name, count in files.items()),
        "- `training.json`: recipe, sizes, label counts, loss curve, figures.",
        "",
        "Rebuild: `ace llm build-embedded --labels DIR --out DIR` (stages: labels, files, train, card).",
        "",
        "Licence: Apache-2.0, as the project.",
        "",
    ]
    return "\n".join(lines)


def read_context(model: Path) -> str:
    """Hash of the settings under which a model folder's gate and seed files were replayed."""
    path = model / META_FILE
    return str(json.loads(path.read_text()).get("context", "?")) if path.is_file() else "?"


def _figures(validation: dict[str, Any]) -> list[str]:
    if not validation:
        return ["Not measured: there were no held-out labels when it was trained."]
    names = (
        ("states", "states"),
        ("parsed", "share of replies that parse"),
        ("usable", "share that names a usable candidate"),
        ("model", "survival regret, this model"),
        ("first", "survival regret, first"),
        ("random", "survival regret, random"),
        ("first_minus_model_ci95", "first minus this model, 95 % interval"),
        ("same_as_first", "share that equals first"),
    )
    rows = ["| | all | pivotal |", "| --- | --- | --- |"]
    for key, name in names:
        cells = [str(validation[part].get(key, "")) for part in ("all", "pivotal")]
        rows.append(f"| {name} | {cells[0]} | {cells[1]} |")
    return rows
