"""Whether replays on file still speak of the present decision engine.

What is written down where labels are made (`ace_ray.grid.behaviour`) is compared with what the engine does now. Old
gate and seed files do not stop a run: the choices that they judge are still choices, but the fates are those of a
controller that is no longer played.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

from pydantic import ValidationError

from ace_ray.config.errors import DataError
from ace_ray.config.grid import GridSettings
from ace_ray.finetune.gate import GATE_FILE
from ace_ray.finetune.label_files import MODEL_META
from ace_ray.finetune.seeds import SEED_FILE
from ace_ray.grid.behaviour import behaviour, same

log = logging.getLogger(__name__)


def remedy(folder: Path) -> str:
    """The command that replays the gate and seed decisions of a model folder anew, in minutes."""
    return f"replay them anew: ace llm build-embedded --out {folder} --stage replay"


def other_decisions(folder: Path) -> str:
    """The command that finds other decisions for the files, in hours, where those that they hold do not do."""
    return f"label others: ace llm build-embedded --labels NEW_DIR --out {folder} --stage decisions"


def aged(folder: Path) -> str | None:
    """Why the gate and seed files of a model folder are not of the present engine; None if they are, or if there are
    none. Costs about a second, and an environment for as long.
    """
    files = [name for name in (GATE_FILE, SEED_FILE) if (folder / name).is_file()]
    if not files:
        return None
    names = f"{' and '.join(files)} in {folder}"
    path = folder / MODEL_META
    meta = json.loads(path.read_text()) if path.is_file() else {}
    if "behaviour" not in meta:
        return f"{names} do not say which decision engine they were replayed with"
    try:
        now = behaviour(GridSettings(**meta["plan"]["grid"]))
    except (ValidationError, DataError) as error:
        return f"{names} were replayed under settings or data that are unknown here ({error})"
    if not same(meta["behaviour"], now):
        return f"{names} were replayed with a decision engine that acts otherwise than the present one"
    return None


def warn_if_aged(folder: Path) -> None:
    """Logs a warning with the remedy where `aged` finds something; call it once a process that uses the files."""
    if found := aged(folder):
        log.warning("%s: %s", found, remedy(folder))
