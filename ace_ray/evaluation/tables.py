"""The table of agents that ends `make train` and that `ace compare` prints: as text, Markdown and JSON."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ace_ray.config import files
from ace_ray.evaluation.compare import Comparison, bounds, compare, differences, points
from ace_ray.evaluation.result import SCORES, Evaluation
from ace_ray.evaluation.scores import QUIRK

HEAD = ("agent", "survival %", "95 % interval", "full", "reward", "actions", "decision ms p50 / p99", "illegal")
HEAD_SCORES = ("score 2020", "score 2022")
HEAD_PAIRED = ("paired difference", "survival, points", "95 % interval", "full", "longer / equal / shorter", "reward")

SHOWN = 8  # differences of settings and versions that a note names


@dataclass(frozen=True)
class Table:
    """Agents on the same scenarios, and each of them against one reference.

    Attributes:
        evaluations: one an agent, in the order of the rows.
        reference: the agent that differences are taken against.
        comparisons: agent - reference for every other agent, and whatever further pairs were asked for.
    """

    evaluations: tuple[Evaluation, ...]
    reference: str
    comparisons: tuple[Comparison, ...]

    def text(self) -> str:
        """Aligned columns for a terminal."""
        parts = [aligned(self._rows())]
        if self.comparisons:
            parts.append(aligned((HEAD_PAIRED, *self._paired_rows())))
        return "\n\n".join([*parts, "\n".join(self.notes())])

    def markdown(self) -> str:
        """The same in Markdown."""
        parts = [markdown_table(self._rows())]
        if self.comparisons:
            parts.append(markdown_table((HEAD_PAIRED, *self._paired_rows())))
        return "\n\n".join([*parts, "\n".join(f"- {note}" for note in self.notes())]) + "\n"

    def to_json(self) -> dict[str, Any]:
        """The evaluations and comparisons in their own JSON forms, and the notes."""
        return {
            "reference": self.reference,
            "agents": [one.to_json() for one in self.evaluations],
            "comparisons": [one.to_json() for one in self.comparisons],
            "notes": self.notes(),
        }

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes `table.txt`, `table.md` and `table.json` into the folder, which is made."""
        folder = Path(folder)
        files.write(folder / "table.txt", self.text() + "\n", parents=True)
        files.write(folder / "table.md", self.markdown())
        files.write_json(folder / "table.json", self.to_json())

    def notes(self) -> list[str]:
        """What a reader has to know to read the numbers."""
        first = self.evaluations[0]
        over = first.survival.over
        chronics = len(set(first.chronics))
        found = [
            f"{len(first.episodes)} scenarios ({first.scenarios}) of {first.env}, data {first.data}, "
            f"on {chronics} chronics; every agent plays the same ones. "
            f"Critical states: {_predicates(self.evaluations)}.",
            "survival: mean share of a scenario's steps survived. reward: mean over episodes of the sum of "
            "load/production - 0.9, -1 at a blackout. decision ms: wall time of a critical decision, candidates "
            "included. actions: mean number of acting steps an episode.",
            f"95 % intervals resample {over}." if first.survival.ci95 is not None else f"95 % intervals: {over}.",
        ]
        if seen := [one.agent for one in self.evaluations if one.in_sample]:
            found.append(
                f"in-sample injections: the training of {', '.join(seen)} has seen these chronics, "
                "with other environment seeds."
            )
        if any(one.scores for one in self.evaluations):
            found.append(QUIRK)
        for other in self.evaluations[1:]:
            if different := differences(first, other):
                more = f" and {len(different) - SHOWN} more" if len(different) > SHOWN else ""
                found.append(
                    f"{first.agent} and {other.agent} were evaluated with different settings or versions: "
                    f"{', '.join(different[:SHOWN])}{more}."
                )
        for one in self.comparisons:
            if one.survival.contains_zero:
                found.append(f"{one.b} - {one.a}: the interval contains 0, so this shows no difference in survival.")
            elif one.survival.contains_zero is None:
                found.append(f"{one.b} - {one.a}: no interval, so this shows no difference in survival.")
        return found

    def _rows(self) -> list[tuple[str, ...]]:
        scored = any(one.scores for one in self.evaluations)
        rows: list[tuple[str, ...]] = [HEAD + HEAD_SCORES * scored]
        for one in self.evaluations:
            survival, ms, scores = one.survival, one.decision_ms, one.scores
            low_high = "-" if survival.ci95 is None else "{:.1f} to {:.1f}".format(*(100 * v for v in survival.ci95))
            rows.append(
                (
                    one.agent,
                    f"{100 * survival.mean:.1f}",
                    low_high,
                    f"{one.full_episodes}/{len(one.episodes)}",
                    f"{one.reward:.2f}",
                    f"{one.actions:.1f}",
                    "-" if ms["p50"] is None else f"{ms['p50']:.0f} / {ms['p99']:.0f}",
                    str(one.illegal_actions),
                    *(("-" if scores is None else f"{scores[name].mean:.1f}") for name in SCORES if scored),
                )
            )
        return rows

    def _paired_rows(self) -> list[tuple[str, ...]]:
        return [
            (
                f"{one.b} - {one.a}",
                f"{100 * one.survival.mean:+.1f}",
                points(one.survival),
                f"{one.full_episodes:+d}",
                f"{one.better} / {one.equal} / {one.worse}",
                f"{one.reward.mean:+.2f} {bounds(one.reward)}",
            )
            for one in self.comparisons
        ]


def table(evaluations: Sequence[Evaluation], reference: str = "greedy", pairs: Sequence[tuple[str, str]] = ()) -> Table:
    """Puts evaluations of the same scenarios into one table.

    Args:
        evaluations: one an agent; the reference must be among them.
        reference: agent that all others are compared with.
        pairs: further comparisons `(a, b)`, reported as b - a, such as the policy at iteration 0 and the trained one.

    Raises:
        DataError: the evaluations are not of the same scenarios.
    """
    named = {one.agent: one for one in evaluations}
    wanted = [(reference, name) for name in named if name != reference]
    wanted += [pair for pair in pairs if pair not in wanted]
    comparisons = tuple(compare(named[a], named[b]) for a, b in wanted)
    return Table(tuple(evaluations), reference, comparisons)


def _predicates(evaluations: Sequence[Evaluation]) -> str:
    found = {one.predicate for one in evaluations}
    if len(found) == 1:
        return found.pop()
    return ", ".join(f"{one.agent} {one.predicate}" for one in evaluations)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns of rows, the first of which is the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * (sum(widths) + 2 * len(widths) - 2), *lines[1:]])


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of rows, the first of which is the head."""
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
