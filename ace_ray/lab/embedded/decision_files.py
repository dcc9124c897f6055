"""Gate and seed files: which labelled decisions go into them, how many are wanted, and how many there are so far."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ace_ray.config.errors import DataError
from ace_ray.config.refine import FinetuneSettings
from ace_ray.finetune.held_out import GATE_FILE, MODEL_META, SEED_FILE
from ace_ray.lab.embedded.label_files import read_meta, read_rows, write_rows


@dataclass(frozen=True)
class DecisionFile:
    """Replayed decisions of one kind.

    Attributes:
        name: of the file in the model folder.
        split, mark: it takes rows of this split whose column `mark` is true.
        of_scenario: at most so many of one scenario, so that a few unlucky episodes do not fill it.
        enough: decisions from which labelling may stop.
        least: decisions below which it is better labelled anew than replayed.
        most: rows that are kept.
    """

    name: str
    split: str
    mark: str
    of_scenario: int
    enough: int
    least: int
    most: int

    def takes(self, row: dict[str, Any]) -> bool:
        """Whether a label row is of this kind."""
        return bool(row["ids"]) and row["split"] == self.split and bool(row[self.mark])

    def choose(self, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
        """The rows of the file: first those that are the first of their scenario, then the second, and so on."""
        turns: list[list[dict[str, Any]]] = [[] for _ in range(self.of_scenario)]
        seen: Counter[str] = Counter()
        for row in filter(self.takes, rows):
            turn = seen[scenario := scenario_of(row)]
            seen[scenario] += 1
            if turn < self.of_scenario:
                turns[turn].append(row)
        return [row for turn in turns for row in turn][: self.most]


_GATE_LEAST = FinetuneSettings().gate_snapshots  # a run that asks for more than there are does not tune
GATE = DecisionFile(GATE_FILE, "validation", "pivotal", of_scenario=6, enough=96, least=_GATE_LEAST, most=128)
SEEDS = DecisionFile(SEED_FILE, "train", "salvageable", of_scenario=2, enough=32, least=16, most=96)
FILES = (GATE, SEEDS)


class Tally:
    """How many decisions of each file there are, counted as labelling goes on."""

    def __init__(self, rows: Iterable[dict[str, Any]] = ()) -> None:
        self._seen: Counter[tuple[str, str]] = Counter()
        self.add(rows)

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Counts further label rows."""
        self._seen.update((file.name, scenario_of(row)) for row in rows for file in FILES if file.takes(row))

    def count(self, file: DecisionFile) -> int:
        """Decisions that the file could hold."""
        return sum(min(n, file.of_scenario) for (name, _), n in self._seen.items() if name == file.name)

    @property
    def enough(self) -> bool:
        """Whether every file has enough."""
        return all(self.count(file) >= file.enough for file in FILES)

    @property
    def neediest(self) -> DecisionFile:
        """The file that is furthest from having enough."""
        return min(FILES, key=lambda file: self.count(file) / file.enough)

    def text(self) -> dict[str, str]:
        """'mark' -> 'count/enough', for a progress bar."""
        return {file.mark: f"{self.count(file)}/{file.enough}" for file in FILES}


def write_decision_files(labels: Path, out: Path, least: Sequence[int] = (1, 1)) -> tuple[int, int]:
    """Write gate and seed files of a label folder into a model folder; returns how many decisions each holds.

    Gate: pivotal decisions of validation scenarios (`GATE`). Seeds: salvageable ones of training scenarios (`SEEDS`).
    Both evenly over the scenarios in the order in which they were labelled. The folder's meta data go along: they say
    under which settings and by which engine the decisions were replayed.

    Args:
        labels: label folder.
        out: model folder.
        least: of gate and seed decisions; with fewer nothing is written.

    Raises:
        DataError: the labels hold fewer such decisions.
    """
    rows = list(read_rows(labels, "labels"))
    chosen = [file.choose(rows) for file in FILES]
    gate, seeds = map(len, chosen)
    if gate < least[0] or seeds < least[1]:
        raise DataError(
            f"the labels in {labels} hold {gate} pivotal validation decisions and {seeds} salvageable training ones, "
            f"{least[0]} and {least[1]} are needed",
            "label more episodes: the same command continues where it stopped",
        )
    write_decisions(out, chosen, read_meta(labels))
    return gate, seeds


def write_decisions(out: Path, decisions: Sequence[Sequence[dict[str, Any]]], meta: dict[str, Any]) -> None:
    """Write the rows of each of `FILES`, and last what they were replayed with: until then they count as old."""
    out.mkdir(parents=True, exist_ok=True)
    for file, rows in zip(FILES, decisions, strict=True):
        write_rows(out / file.name, rows)
    (out / MODEL_META).write_text(json.dumps(meta, indent=1))


def scenario_of(row: dict[str, Any]) -> str:
    """The scenario of a label row, as a key."""
    return json.dumps(json.loads(row["snapshot"])["scenario"], sort_keys=True)
