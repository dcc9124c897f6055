"""The figures of `ace llm eval` and `ace llm eval-critic`: means over states, and paired differences with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ace_ray.config.errors import DataError
from ace_ray.config.run import RunSettings
from ace_ray.monitoring.statistics import OVER_CHRONICS, Interval, interval

FIELDS = ("parsed", "legal", "better", "tie", "worse", "survival_regret", "return_regret", "outside_list")
PAIRED = ("better", "survival_regret", "return_regret")
_DIGITS = 4


def exam_result(records: Sequence[Mapping[str, Any]], settings: RunSettings, split: str) -> dict[str, Any]:
    """What `ace llm eval --json` writes, from an exam's records (`Record` in lab/exam/exam.py)."""
    return {
        **_about(records, settings, split),
        "rounds": settings.refine.rounds,
        "prompt_tokens": _tokens(records, "prompt_tokens"),
        "reply_tokens": _tokens(records, "reply_tokens"),
        **summarise(records, settings.refine.rounds),
    }


def _about(records: Sequence[Mapping[str, Any]], settings: RunSettings, split: str) -> dict[str, Any]:
    return {
        "env": settings.grid.env,
        "data": settings.grid.data or "packaged",
        "split": split,
        "states": len(records),
        "episodes": len({record["episode"] for record in records}),
        "chronics": len({record["chronic"] for record in records}),
        "horizon": settings.grid.compare.horizon,
        "model": records[0]["model_name"],
        "adapter_version": records[0]["adapter_version"],
        "prompt": settings.language.prompt,
    }


def _tokens(records: Sequence[Mapping[str, Any]], field: str) -> dict[str, float]:
    counts = [record[field] for record in records]
    return {"median": float(np.median(counts)), "max": float(np.max(counts))}


def summarise(records: Sequence[Mapping[str, Any]], rounds: int) -> dict[str, Any]:
    """`overall` and `pivotal` of an exam's records (`Record` in lab/exam/exam.py)."""
    return {
        "overall": _part(records, rounds),
        "pivotal": _part([record for record in records if record["pivotal"]], rounds),
    }


def _part(records: Sequence[Mapping[str, Any]], rounds: int) -> dict[str, Any]:
    if not records:
        return {"states": 0}
    chronics = [record["chronic"] for record in records]
    model = [record["model"] for record in records]
    free = [record["without_grammar"] for record in records]
    names = list(records[0]["baselines"])
    others = {name: [record["baselines"][name] for record in records] for name in names}
    return {
        "states": len(records),
        **_means(model, rounds),
        "without_grammar": {field: _mean(free, field) for field in ("parsed", "legal")},
        "baselines": {name: _means(rows, rounds) for name, rows in others.items()},
        "paired": {
            name: {field: _difference(model, rows, field, chronics) for field in (*PAIRED, f"survival_regret_{rounds}")}
            for name, rows in others.items()
        },
    }


def _means(rows: Sequence[Mapping[str, float]], rounds: int) -> dict[str, Any]:
    return {
        **{field: _mean(rows, field) for field in FIELDS},
        "rounds": {
            str(r): {field: _mean(rows, f"{field}_{r}") for field in ("better", "survival_regret")}
            for r in range(1, rounds + 1)
        },
    }


def _mean(rows: Sequence[Mapping[str, float]], field: str) -> float:
    return round(float(np.mean([row[field] for row in rows])), _DIGITS)


def _difference(
    model: Sequence[Mapping[str, float]], rows: Sequence[Mapping[str, float]], field: str, chronics: Sequence[str]
) -> dict[str, Any]:
    """Model minus baseline, state by state."""
    return told(interval([a[field] - b[field] for a, b in zip(model, rows, strict=True)], chronics))


def told(found: Interval) -> dict[str, Any]:
    """An interval as JSON; where chronics cannot be resampled it says so."""
    ends = None if found.ci95 is None else [round(end, _DIGITS) for end in found.ci95]
    row: dict[str, Any] = {"mean": round(found.mean, _DIGITS), "ci95": ends}
    return row if found.over == OVER_CHRONICS else {**row, "over": found.over}


def exam_lines(result: Mapping[str, Any]) -> list[str]:
    """The table that a person reads."""
    lines = [
        f"{result['states']} states of {result['episodes']} {result['split']} episodes on {result['env']}, "
        f"model {result['model']}",
    ]
    for part in ("overall", "pivotal"):
        found = result[part]
        lines.append(f"{part}: {found['states']} states")
        if not found["states"]:
            continue
        rows = {"model": found, **found["baselines"]}
        last = max(found["rounds"], key=int)
        lines.append(f"  {'':<10}{'parsed':>8}{'legal':>8}{'better':>8}{'tie':>8}{'worse':>8}{'regret':>8}"
                     f"{'return':>8}{'outside':>8}{f'better@{last}':>10}{f'regret@{last}':>10}")  # fmt: skip
        for name, row in rows.items():
            kept = row["rounds"][last]
            cells = "".join(f"{row[field]:8.3f}" for field in FIELDS)
            lines.append(f"  {name:<10}{cells}{kept['better']:10.3f}{kept['survival_regret']:10.3f}")
        free = found["without_grammar"]
        lines.append(f"  without the grammar: parsed {free['parsed']:.3f}, legal {free['legal']:.3f}")
        for name, differences in found["paired"].items():
            row = differences["survival_regret"]
            ends = "no interval" if row["ci95"] is None else f"95 % [{row['ci95'][0]:+.3f}, {row['ci95'][1]:+.3f}]"
            lines.append(f"  survival regret, model - {name}: {row['mean']:+.3f}, {ends}")
    lines.append("regret: share of the horizon that the best replayed action survives, less that of the proposal")
    return lines


def critic_result(records: Sequence[Mapping[str, Any]], settings: RunSettings, split: str) -> dict[str, Any]:
    """What `ace llm eval-critic --json` writes, from the records of lab/exam/critic_exam.py.

    Raises:
        DataError: no mistake could be injected.
    """
    greedy = [record for record in records if not record["astray"]]
    if not greedy:
        raise DataError("in none of these states could a fatal decision be injected", "ask for more --states")
    return {
        **_about(greedy, settings, split),
        **_critic_part(greedy),
        "astray": _critic_part([record for record in records if record["astray"]]),
    }


def _critic_part(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    if not records:
        return {"states": 0}
    chronics = [record["chronic"] for record in records]

    def over(values: Sequence[float]) -> dict[str, Any]:
        return told(interval(values, chronics))

    return {
        "states": len(records),
        "shown": over([record["shown"] for record in records]),
        "parsed": _mean(records, "parsed"),
        "edits": _mean(records, "edits"),
        "dropped": _mean(records, "dropped"),
        "lowered": over([record["lowered"] for record in records]),
        "random": over([record["lowered_at_random"] for record in records]),
        "rules": {name: over([record["rules"][name] for record in records]) for name in records[0]["rules"]},
        "paired": over([record["lowered"] - record["lowered_at_random"] for record in records]),
    }


def critic_lines(result: Mapping[str, Any]) -> list[str]:
    """The figures that a person reads."""
    lines = [
        f"{result['states']} injected mistakes that led to a blackout, {result['episodes']} {result['split']} episodes "
        f"on {result['env']}, model {result['model']}",
        *_critic_rows(result),
    ]
    astray = result["astray"]
    lines.append(f"the same with a controller that goes astray after the mistake: {astray['states']} episodes")
    return [*lines, *(_critic_rows(astray) if astray["states"] else [])]


def _critic_rows(part: Mapping[str, Any]) -> list[str]:
    rows = {
        "injected mistake among the key steps": part["shown"],
        "lowered by the critic": part["lowered"],
        "lowered by as many random edits": part["random"],
        **{f"lowered by the rule {name}": found for name, found in part["rules"].items()},
        "critic - random": part["paired"],
    }
    lines = []
    for what, found in rows.items():
        ends = found["ci95"]
        lines.append(f"  {what:<44}{found['mean']:7.3f}" + (f"  95 % [{ends[0]:.3f}, {ends[1]:.3f}]" if ends else ""))
    counts = f"edits an episode {part['edits']:.2f}, entries dropped {part['dropped']:.2f}, parsed {part['parsed']:.3f}"
    return [*lines, f"  {counts}"]
