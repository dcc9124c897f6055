"""What drills show: each agent's survival, and its difference from the reference drill by drill.

Drills of a chronic share its injections and are no independent draws, so intervals resample chronics first. The exact
McNemar test looks at the drills in which exactly one of two agents survives, and asks whether a fair coin would split
them so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.stats import binomtest

from ace_ray.config import files
from ace_ray.evaluation.drills import DrillRow, write_rows
from ace_ray.evaluation.result import plain_name
from ace_ray.evaluation.tables import aligned, markdown_table
from ace_ray.grid.risk import SOFT_RHO
from ace_ray.monitoring.statistics import Interval, interval

FEWEST = 200  # drills below which nothing is claimed
LEVEL = 0.05
BAND_HOURS = 3


@dataclass(frozen=True)
class PairedDrills:
    """An agent against the reference on the same drills.

    Attributes:
        a, b: reference and agent.
        drills: number of pairs.
        difference: share survived by `b` minus that by `a`, with its interval.
        saved, lost: drills that only `b`, that only `a` survives.
        p: of the exact McNemar test.
    """

    a: str
    b: str
    drills: int
    difference: Interval
    saved: int
    lost: int
    p: float

    @property
    def claim(self) -> str:
        """What this shows, in words: a difference has to pass the test and have an interval that excludes 0."""
        if self.drills < FEWEST:
            return f"not shown: {self.drills} drills are fewer than {FEWEST}"
        if self.p >= LEVEL or self.difference.contains_zero is not False:
            return "not shown"
        return "better" if self.difference.mean > 0 else "worse"

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "a": self.a,
            "b": self.b,
            "drills": self.drills,
            "difference": self.difference.mean,
            "ci95": self.difference.ci95,
            "saved": self.saved,
            "lost": self.lost,
            "mcnemar_p": self.p,
            "claim": self.claim,
        }


@dataclass(frozen=True)
class DrillReport:
    """Agents on the same drills.

    Attributes:
        title: which drills.
        reference: the agent that the others are compared with.
        agents: rows of each agent, all in the order of the drills.
    """

    title: str
    reference: str
    agents: dict[str, tuple[DrillRow, ...]]

    @property
    def pairs(self) -> list[PairedDrills]:
        """Every other agent against the reference."""
        first = self.agents[self.reference]
        return [
            paired(self.reference, first, name, rows) for name, rows in self.agents.items() if name != self.reference
        ]

    def text(self) -> str:
        """Aligned columns for a terminal."""
        return self._written(aligned, "\n".join)

    def markdown(self) -> str:
        """The same in Markdown."""
        return self._written(markdown_table, lambda notes: "\n".join(f"- {note}" for note in notes)) + "\n"

    def to_json(self) -> dict[str, Any]:
        """JSON-able form."""
        return {
            "drills": self.title,
            "reference": self.reference,
            "agents": [
                {"agent": name, "survival": {"mean": found.mean, "ci95": found.ci95}, **_counts(rows)}
                for name, rows in self.agents.items()
                for found in [survival(rows)]
            ],
            "comparisons": [pair.to_json() for pair in self.pairs],
            **{f"by_{what}": self._by(of) for what, of in GROUPS.items()},
            "notes": self.notes(),
        }

    def save(self, folder: Path) -> None:
        """Writes `drills.md`, and the rows of each agent as `AGENT.parquet`, into the folder, which is made."""
        files.write(folder / "drills.md", self.markdown(), parents=True)
        for name, rows in self.agents.items():
            write_rows(rows, folder / f"{plain_name(name)}.parquet")

    def notes(self) -> list[str]:
        """What a reader has to know to read the numbers."""
        rows = self.agents[self.reference]
        over = survival(rows).over.replace("seeds", "drills")
        return [
            f"{len(rows)} drills ({self.title}) on {len({row.chronic for row in rows})} chronics; every agent plays "
            "the same ones.",
            f"survival: share of drills survived to their last step. 95 % intervals resample {over}. median death: "
            f"steps from the loss of the line to the blackout. stress: mean sum of rho above {SOFT_RHO} right after "
            "that loss. before: blackouts before it.",
            "saved / lost: drills that only this agent survives, and that only the reference does; p: exact McNemar "
            f"test. A difference is claimed with {FEWEST} drills or more, where p < {LEVEL} and the interval excludes "
            "0.",
        ]

    def _written(self, table: Callable[[Sequence[Sequence[str]]], str], notes: Callable[[list[str]], str]) -> str:
        parts = [table(self._rows())]
        if self.pairs:
            parts.append(table(self._paired_rows()))
        parts += [table(self._group_rows(what, of)) for what, of in GROUPS.items()]
        return "\n\n".join([*parts, notes(self.notes())])

    def _rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [
            ("agent", "survival %", "95 % interval", "median death", "stress", "actions", "before", "illegal")
        ]
        for name, played in self.agents.items():
            found, counts = survival(played), _counts(played)
            low_high = "-" if found.ci95 is None else "{:.1f} to {:.1f}".format(*(100 * value for value in found.ci95))
            rows.append(
                (
                    name,
                    f"{100 * found.mean:.1f}",
                    low_high,
                    "-" if counts["median_death"] is None else f"step {counts['median_death']:.0f}",
                    "-" if counts["stress"] is None else f"{counts['stress']:.2f}",
                    f"{counts['actions']:.1f}",
                    str(counts["lost_before"]),
                    str(counts["illegal_actions"]),
                )
            )
        return rows

    def _paired_rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [
            ("paired difference", "points", "95 % interval", "saved / lost", "McNemar p", "claim")
        ]
        for pair in self.pairs:
            limits = pair.difference.ci95
            rows.append(
                (
                    f"{pair.b} - {pair.a}",
                    f"{100 * pair.difference.mean:+.1f}",
                    "-" if limits is None else "[{:+.1f}, {:+.1f}]".format(*(100 * value for value in limits)),
                    f"{pair.saved} / {pair.lost}",
                    f"{pair.p:.2g}",
                    pair.claim,
                )
            )
        return rows

    def _by(self, of: Callable[[DrillRow], str]) -> dict[str, Any]:
        """Drills of each group, and the share of them that each agent survives."""
        keys = [of(row) for row in self.agents[self.reference]]
        return {
            key: {
                "drills": keys.count(key),
                "survival": {
                    name: _share([row for row, at in zip(rows, keys, strict=True) if at == key])
                    for name, rows in self.agents.items()
                },
            }
            for key in sorted(set(keys))
        }

    def _group_rows(self, what: str, of: Callable[[DrillRow], str]) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [(what, "drills", *(f"{name}, %" for name in self.agents))]
        for key, group in self._by(of).items():
            rows.append((key, str(group["drills"]), *(f"{100 * share:.0f}" for share in group["survival"].values())))
        return rows


def _line(row: DrillRow) -> str:
    return f"{row.line:>3}"


def _hour(row: DrillRow) -> str:
    begin = row.hour // BAND_HOURS * BAND_HOURS
    return f"{begin:02d}-{begin + BAND_HOURS:02d} h"


def _week(row: DrillRow) -> str:
    return row.chronic


GROUPS: dict[str, Callable[[DrillRow], str]] = {"line": _line, "hour": _hour, "week": _week}


def survival(rows: Sequence[DrillRow]) -> Interval:
    """Share of drills survived."""
    return interval([float(row.survived) for row in rows], [row.chronic for row in rows])


def paired(a: str, first: Sequence[DrillRow], b: str, second: Sequence[DrillRow]) -> PairedDrills:
    """Agent `b` against the reference `a`; both in the same order of drills."""
    saved = sum(y.survived and not x.survived for x, y in zip(first, second, strict=True))
    lost = sum(x.survived and not y.survived for x, y in zip(first, second, strict=True))
    return PairedDrills(
        a,
        b,
        len(first),
        interval(
            [float(y.survived) - float(x.survived) for x, y in zip(first, second, strict=True)],
            [row.chronic for row in first],
        ),
        saved,
        lost,
        float(binomtest(saved, saved + lost).pvalue) if saved + lost else 1.0,
    )


def _share(rows: Sequence[DrillRow]) -> float:
    return sum(row.survived for row in rows) / len(rows)


def _counts(rows: Sequence[DrillRow]) -> dict[str, Any]:
    deaths = sorted(row.death for row in rows if row.death is not None)
    stresses = [row.stress for row in rows if row.stress is not None]
    return {
        "survived": sum(row.survived for row in rows),
        "median_death": deaths[len(deaths) // 2] if deaths else None,
        "stress": sum(stresses) / len(stresses) if stresses else None,
        "actions": sum(row.actions for row in rows) / len(rows),
        "lost_before": sum(death < 0 for death in deaths),
        "illegal_actions": sum(row.illegal_actions for row in rows),
    }
