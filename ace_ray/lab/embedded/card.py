"""The model card: README.md of the embedded model, from what the stages of its making wrote down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ace_ray.config.errors import DataError
from ace_ray.finetune.held_out import MODEL_META, read_parquet
from ace_ray.lab.embedded.decision_files import FILES
from llm_service.adapters import read_manifest
from llm_service.published import SHIPPED, PublishedVersions, shipped


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
    files = {file.name: len(read_parquet(model / file.name)) for file in FILES if (model / file.name).is_file()}
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
        f"without a replay, {labels['episodes']} episodes for the critic; all from training scenarios "
        f"(seed {plan.get('seed', '?')}). {labels['validation']} replayed decisions of validation scenarios were held "
        "out.",
        f"- Schedule: {recipe['examples']} examples (seed {recipe['seed']}); the first {recipe['lessons']:.0%} made-up "
        f"cases of many grids, then {1 - recipe['rest']:.0%} real ones, of which {recipe['verified']:.0%} replayed; "
        f"{recipe['critic']:.0%} are critic examples. Loss: mean cross-entropy over the reply's tokens"
        + (f" plus {recipe['prompt_loss']} times that over the prompt's" if recipe["prompt_loss"] else " alone")
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
        "the other listed candidates, `left` what the prompt ends with (`first` where it shows no risk). "
        "Pivotal: some of the listed actions survive and others do not.",
        "",
        *_figures(record["validation"]),
        "",
        *_critic(model),
        "## Limits",
        "",
        "It knows one grid and one prompt. An outcome depends on the controller that goes on after the action, so "
        "labels age when the decision engine, its settings or its proposal memory change: those of the training labels "
        f"have the settings' hash {labels['meta'].get('context', '?')}"
        + (f", those of the gate and seed files {read_context(model)}." if files else "."),
        "",
        "## Files",
        "",
        *(f"- `{name}`: {count} decisions with their replays." for name, count in files.items()),
        "- `training.json`: recipe, sizes, label counts, loss curve, figures.",
        *([f"- `{SHIPPED}/`: the critic's adapter, with its manifest."] if shipped(model) else []),
        "",
        "Rebuild: `ace llm build-embedded --labels DIR --out DIR` (stages: labels, plant, files, train, critic, card).",
        "",
        "Gate and seed files alone, when `ace doctor` says that they were replayed with another engine: "
        "`ace llm build-embedded --out DIR --stage replay --processes N` replays their decisions with the present one "
        "and drops those that are no longer pivotal or salvageable (minutes). Where it says that too few are left, "
        "`ace llm build-embedded --labels NEW_DIR --out DIR --stage decisions --processes N` finds others (hours). It "
        "shows how many decisions it has of those wanted, goes on where it was stopped, and ends with files and card "
        "once there are enough.",
        "",
        "Licence: Apache-2.0, as the project.",
        "",
    ]
    return "\n".join(lines)


def read_context(model: Path) -> str:
    """Hash of the settings under which a model folder's gate and seed files were replayed."""
    path = model / MODEL_META
    return str(json.loads(path.read_text()).get("context", "?")) if path.is_file() else "?"


def _critic(model: Path) -> list[str]:
    """The section on the critic's adapter; nothing where none ships."""
    shelf = shipped(model)
    ref = PublishedVersions(shelf).current("critic") if shelf else None
    if ref is None:
        return []
    record = read_manifest(ref.path)["extra"]
    recipe, training, found = record["recipe"], record["training"], record["made_up"]
    size = sum(file.stat().st_size for file in Path(ref.path).glob("*.safetensors"))
    return [
        "## The critic's adapter",
        "",
        f"Alone, the model writes the critic's form without reading the episode. `{SHIPPED}/critic-v1` is a LoRA of "
        f"rank {recipe['rank']} ({size / 1e6:.2f} MB) for that role; a run begins with a copy of it. Trained on "
        f"{training['examples']} episodes ({record['planted_episodes']} with injected mistakes, the rest synthetic; "
        f"seed {recipe['seed']}) in {training['steps']} steps of {recipe['batch']}, step size {recipe['lr']}, on "
        f"{record['device']} in {training['seconds'] / 60:.1f} minutes; loss {training['first_loss']} to "
        f"{training['last_loss']}. It reads the prompt's last line and lowers the last four decisions that were not "
        f"the best by prediction: of {found['episodes']} made-up episodes that it never saw, {found['parsed']:.0%} of "
        f"its replies parse and {found['exact']:.0%} make exactly the right edits. What that is worth on replayed "
        "episodes, `ace llm eval-critic` measures.",
        "",
    ]


def _figures(validation: dict[str, Any]) -> list[str]:
    if not validation:
        return ["Not measured: there were no held-out labels when it was trained."]
    names = (
        ("states", "states"),
        ("parsed", "share of replies that parse"),
        ("usable", "share that names a usable candidate"),
        ("model", "survival regret, this model"),
        ("first", "survival regret, first"),
        ("left", "survival regret, left"),
        ("random", "survival regret, random"),
        ("first_minus_model_ci95", "first minus this model, 95 % interval"),
        ("same_as_first", "share that equals first"),
        ("same_as_left", "share that equals left"),
    )
    rows = ["| | all | pivotal |", "| --- | --- | --- |"]
    for key, name in names:
        cells = [str(validation[part].get(key, "")) for part in ("all", "pivotal")]
        rows.append(f"| {name} | {cells[0]} | {cells[1]} |")
    return rows
