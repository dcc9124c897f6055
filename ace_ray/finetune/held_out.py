"""What ships beside a language model: held-out decisions for the gate, warm-start decisions for the queue of
refinements, and whether their replays still speak of the present decision engine.

Gate decisions come from validation scenarios, where some of do-nothing and the first candidates survive and
others do not.
Warm-start decisions come from training scenarios: the played action dies while another of the compared set survives,
so a run that has seen no blackout yet has something to think twice about (`refine.seed_queue`).

What is written down where labels are made (`ace_ray.grid.fingerprint`) is compared with what the engine does now. Old
files do not stop a run: the choices that they judge are still choices, but the outcomes are those of a controller that
is no longer played.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ace_ray.config.errors import DataError, GridMismatchError
from ace_ray.config.grid import GridSettings
from ace_ray.config.refine import LanguageSettings
from ace_ray.domain import Domain, Outcome, Snapshot
from ace_ray.finetune.examples import LabelledCase
from ace_ray.language.prompts import Message
from ace_ray.language.reply import parse_actor
from ace_ray.language.view import BadView, CandidateView, CaseView
from llm_service.settings import EMBEDDED

log = logging.getLogger(__name__)

GATE_FILE = "gate.parquet"
SEED_FILE = "seeds.parquet"
MODEL_META = "labels.json"  # the same beside the gate and seed files of a model folder


Replier = Callable[[Sequence[list[Message]]], list[str]]


def read_parquet(path: Path) -> list[dict[str, Any]]:
    """All rows of one Parquet file."""
    import pyarrow.parquet as pq

    return pq.read_table(path).to_pylist()


def labelled_case(row: dict[str, Any]) -> LabelledCase:
    """The labelled decision of a row."""
    outcomes = outcomes_of(row)
    span = max((abs(outcome.span) for outcome in outcomes.values()), default=0.0)
    return LabelledCase(
        row["key"],
        CaseView.from_json(row["case"]),
        CandidateView(**json.loads(row["played"])),
        outcomes,
        float(row["tie"]) / span if span else 0.0,  # the column holds the share of the horizon's reward, in reward
    )


def outcome_columns(outcomes: Mapping[int, Outcome]) -> dict[str, list[Any]]:
    """Outcomes by action id as the columns of a label row."""
    return {
        "ids": list(outcomes),
        "survived": [outcome.survived for outcome in outcomes.values()],
        "steps": [outcome.steps for outcome in outcomes.values()],
        "returns": [round(outcome.ret, 6) for outcome in outcomes.values()],
        "spans": [round(outcome.span, 6) for outcome in outcomes.values()],
    }


def outcomes_of(row: Mapping[str, Any]) -> dict[int, Outcome]:
    """The inverse of `outcome_columns`."""
    columns = zip(row["survived"], row["steps"], row["returns"], row["spans"], strict=True)
    return {int(id): Outcome.from_json(ended) for id, ended in zip(row["ids"], columns, strict=True)}


@dataclass(frozen=True)
class GateCase:
    """A held-out decision: its label, and the snapshot that rebuilds it."""

    labelled: LabelledCase
    snapshot: Snapshot


def load_gate(folder: Path, count: int, language: LanguageSettings, domain: Domain) -> list[GateCase]:
    """The first `count` gate decisions of a model directory.

    Args:
        folder: where `gate.parquet` lies.
        count: `FinetuneSettings.gate_snapshots`.
        language: what the run's prompts show of a candidate, and how many of them besides do-nothing.
        domain: reads the snapshots.

    Raises:
        DataError: the file is missing, or holds fewer decisions.
    """
    path = folder / GATE_FILE
    if not path.is_file():
        raise DataError(
            f"{path} is missing: there are no held-out decisions to judge an adapter by",
            "build it with `ace llm build-embedded --stage files`",
        )
    rows = read_parquet(path)
    if len(rows) < count:
        raise DataError(
            f"{path} has {len(rows)} decisions, but the gate needs {count}",
            "lower finetune.gate_snapshots or label more validation scenarios",
        )
    return [
        GateCase(_shown(labelled_case(row), language), Snapshot.from_json(row["snapshot"], domain.scenario))
        for row in rows[:count]
    ]


def _shown(labelled: LabelledCase, language: LanguageSettings) -> LabelledCase:
    kept = labelled.case.candidates[: language.candidates + 1] if language.candidates else ()
    played = labelled.played
    if not language.danger:
        kept = tuple(replace(candidate, danger=-1) for candidate in kept)
        played = replace(played, danger=-1)
    return replace(labelled, case=replace(labelled.case, candidates=kept), played=played)


def deployed_case(labelled: LabelledCase) -> CaseView:
    """The first-round case as a refiner asks it: candidates by score, the played action as the bad example."""
    return replace(labelled.case, bad=BadView(labelled.played, labelled.outcomes.get(labelled.played.id)))


def proposal(labelled: LabelledCase, reply: str) -> int | None:
    """The listed candidate that a reply names, None if there is none or it is the bad example."""
    parsed = parse_actor(reply)
    number = None if parsed is None else parsed.action.get("candidate")
    if not isinstance(number, int) or not 0 <= number < len(labelled.case.candidates):
        return None
    chosen = labelled.case.candidates[number].id
    return None if chosen == labelled.played.id else chosen


@dataclass(frozen=True)
class Seed:
    """A decision to think twice about: where, what was played, and how the compared set fared."""

    snapshot: Snapshot
    played: int
    distance: int
    outcomes: Mapping[int, Outcome]


def read_seeds(grid: GridSettings, catalogue_hash: str, domain: Domain, folder: Path = EMBEDDED) -> list[Seed]:
    """All seeds that belong to a grid.

    Args:
        grid: settings of the run; seeds of another environment are refused.
        catalogue_hash: of the run's catalogue.
        domain: reads the snapshots.
        folder: model directory.

    Raises:
        DataError: there is no seed file.
        GridMismatchError: the seeds were made on another grid.
    """
    path = folder / SEED_FILE
    if not path.is_file():
        raise DataError(f"{path} is missing: nothing can seed the queue", "set refine.seed_queue=false")
    meta = json.loads((folder / MODEL_META).read_text())
    if meta["catalogue"] != catalogue_hash:
        raise GridMismatchError(
            f"the seeds in {path} belong to another grid than {grid.env}", "set refine.seed_queue=false"
        )
    return [_seed(row, domain) for row in read_parquet(path)]


def _seed(row: dict[str, Any], domain: Domain) -> Seed:
    played = int(json.loads(row["played"])["id"])
    return Seed(Snapshot.from_json(row["snapshot"], domain.scenario), played, int(row["distance"]), outcomes_of(row))


def remedy(folder: Path) -> str:
    """The command that replays the gate and seed decisions of a model folder anew, in minutes."""
    return f"replay them anew: ace llm build-embedded --out {folder} --stage replay"


def other_decisions(folder: Path) -> str:
    """The command that finds other decisions for the files, in hours, where those that they hold do not do."""
    return f"label others: ace llm build-embedded --labels NEW_DIR --out {folder} --stage decisions"


def aged(folder: Path, domain: Domain) -> str | None:
    """Why the gate and seed files of a model folder are not of the present engine; None if they are, or if there are
    none. Costs about a second, and an environment for as long.
    """
    files = [name for name in (GATE_FILE, SEED_FILE) if (folder / name).is_file()]
    if not files:
        return None
    names = f"{' and '.join(files)} in {folder}"
    path = folder / MODEL_META
    meta = json.loads(path.read_text()) if path.is_file() else {}
    reason = domain.outdated(meta)
    return reason and f"{names} {reason}"


def warn_if_aged(folder: Path, domain: Domain) -> None:
    """Logs a warning with the remedy where `aged` finds something; call it once a process that uses the files."""
    if found := aged(folder, domain):
        log.warning("%s: %s", found, remedy(folder))
