"""`ace report RUN`: one self-contained HTML page about a run, from the files in its folder."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from ace_ray.config import files
from ace_ray.config.errors import RunFolderError, ShardError
from ace_ray.config.paths import CONFIG
from ace_ray.evaluation.charts import curves, intervals
from ace_ray.replay.inspect import summary

# chart title -> (name of the event, label of its line); x is decisions
CURVES: dict[str, tuple[tuple[str, str], ...]] = {
    "Survival of training episodes (share)": (("survival", "survival"),),
    "Decisions a second": (("decisions_per_second", "decisions/s"),),
    "Policy staleness (updates)": (("policy_staleness", "staleness"),),
    "Loss": (("q_loss", "Q (eq. 2)"), ("policy_loss", "policy (eq. 10)")),
    "KL of the policy to the slot score (nats)": (("policy_kl", "KL"),),
    "Share of training states where the policy is not greedy": (("learner/not_greedy", "not greedy"),),
    "Refinements (count)": (
        ("refinements_asked", "asked"),
        ("refinements_salvageable", "salvageable"),
        ("refinements_accepted", "accepted"),
    ),
    "Rows in D_LLM and edits (count)": (("refined_rows", "D_LLM"), ("critic_edits", "edits")),
}

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:1180px;margin:2em auto;padding:0 1em;color:#1c2733}
h1{margin-bottom:0}h2{margin-top:2em;border-bottom:1px solid #d4dae0}
table{border-collapse:collapse;margin:1em 0}th,td{padding:.3em .8em;text-align:left;border-bottom:1px solid #e4e8ec}
th{background:#f3f5f7}td{font-variant-numeric:tabular-nums}.quiet{color:#68757f}
.charts{display:flex;flex-wrap:wrap;gap:1em}.charts svg{max-width:100%;height:auto}
pre{background:#f3f5f7;padding:1em;overflow:auto}
"""

Rows = Sequence[Sequence[object]]


def write_report(
    run: str | os.PathLike[str], about: Mapping[str, Any], path: str | os.PathLike[str] | None = None
) -> Path:
    """Writes the report of a run; parts for which the run has no data yet say so.

    Args:
        run: run folder.
        about: the run's own description, as `coevolution.run_folder.read_about` gives it.
        path: HTML file; default `RUN/report.html`.

    Returns:
        The file written.

    Raises:
        RunFolderError: a file of the run is damaged.
    """
    run = Path(run)
    body = [
        f"<h1>{escape(str(about.get('name', run.name)))}</h1>",
        f"<p class=quiet>{escape(_headline(about))}</p>",
        *_evaluated(run / "evaluation" / "table.json"),
        *_training(run / "metrics"),
        *_refinement(run / "replay"),
        *_finetuning(sorted((run / "adapters").glob("finetune-*.json"))),
        *_settings(run / CONFIG),
    ]
    head = f"<meta charset=utf-8><title>{escape(run.name)}</title><style>{STYLE}</style>"
    path = Path(path) if path is not None else run / "report.html"
    files.write(path, f"<!doctype html><html lang=en><head>{head}</head><body>{''.join(body)}</body></html>\n")
    return path


def _headline(about: Mapping[str, Any]) -> str:
    minutes = float(about.get("seconds", 0.0)) / 60
    parts = [
        str(about.get("env", "?")),
        f"refiner {about.get('refiner', '?')}",
        str(about.get("status", "?")),
        f"{minutes:.1f} minutes of training in {about.get('starts', '?')} start(s)",
        f"{about.get('decisions', 0)} decisions",
        f"{about.get('updates', 0)} updates",
        f"seed {about.get('seed', '?')}",
        f"created {about.get('created', '?')}",
    ]
    return " · ".join(parts)


# -- evaluation ------------------------------------------------------------------------------------------------------


def _evaluated(path: Path) -> list[str]:
    try:
        return _evaluation(_read(path))
    except (KeyError, TypeError, AttributeError) as error:
        raise RunFolderError(
            f"{path} is not an evaluation table: {type(error).__name__} {error}", "restore or remove the file"
        ) from error


def _evaluation(table: Mapping[str, Any] | None) -> list[str]:
    parts = ["<h2>Evaluation</h2>"]
    if table is None:
        return [*parts, _missing("no evaluation yet; <code>ace train</code> ends with one")]
    agents, comparisons = table["agents"], table["comparisons"]
    rows = [
        (
            one["agent"],
            f"{100 * one['survival']['mean']:.1f} %",
            _range(one["survival"]["ci95"], 100, "{:.1f}"),
            f"{one['full_episodes']}/{len(one['episodes'])}",
            f"{one['reward']['mean']:.2f}",
            f"{one['actions']['mean']:.1f}",
            _milliseconds(one["decision_ms"]),
            one["illegal_actions"],
        )
        for one in agents
    ]
    head = ("agent", "survival", "95 % interval", "full", "reward", "actions", "decision p50 / p99", "illegal")
    parts += [_table(head, rows)]
    marks = [(one["agent"], 100 * one["survival"]["mean"], _scaled(one["survival"]["ci95"])) for one in agents]
    parts += [f"<div class=charts>{intervals('Survival, % of steps', marks)}"]
    marks = [
        (f"{one['b']} - {one['a']}", 100 * one["survival"]["difference"], _scaled(one["survival"]["ci95"]))
        for one in comparisons
    ]
    parts += [f"{intervals('Paired difference of survival, points', marks, zero=True) if marks else ''}</div>"]
    pairs = [
        (
            f"{one['b']} - {one['a']}",
            f"{100 * one['survival']['difference']:+.1f}",
            _range(one["survival"]["ci95"], 100, "{:+.1f}"),
            {True: "yes", False: "no", None: "no interval"}[one["contains_zero"]],
            f"{one['full_episodes']:+d}",
            f"{one['better']} / {one['equal']} / {one['worse']}",
            f"{one['reward']['difference']:+.2f}",
        )
        for one in comparisons
    ]
    head_pairs = (
        "paired",
        "survival, points",
        "95 % interval",
        "contains 0",
        "full",
        "longer / equal / shorter",
        "reward",
    )
    notes = "".join(f"<li>{escape(note)}" for note in table["notes"])
    parts += [_table(head_pairs, pairs), f"<ul class=quiet>{notes}</ul>", _episodes(agents)]
    return parts


def _episodes(agents: Sequence[Mapping[str, Any]]) -> str:
    """Steps survived, a row a scenario and a column an agent."""
    head = ("chronic", "seed", "start", "steps", *(one["agent"] for one in agents))
    rows = [
        (first["chronic"], first["env_seed"], first["start_step"], first["max_steps"], *(e["steps"] for e in same))
        for first, same in ((same[0], same) for same in zip(*(one["episodes"] for one in agents), strict=True))
    ]
    return f"<details><summary>Steps survived in each scenario</summary>{_table(head, rows)}</details>"


# -- training --------------------------------------------------------------------------------------------------------


def _training(folder: Path) -> list[str]:
    events = read_events(folder)
    charts = []
    for title, lines in CURVES.items():
        drawn = [(label, events[name]) for name, label in lines if events.get(name)]
        if drawn:
            charts.append(curves(title, "decisions", drawn))
    shown = f"<div class=charts>{''.join(charts)}</div>" if charts else _missing("no metrics yet")
    return ["<h2>Training</h2>", shown]


def read_events(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """TensorBoard scalars of a folder: name -> `[(decisions, value)]` in the order of decisions; NaN left out."""
    if not any(folder.glob("events.out.tfevents.*")):
        return {}
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    source = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    source.Reload()
    return {
        name: sorted((float(e.step), float(e.value)) for e in source.Scalars(name) if math.isfinite(e.value))
        for name in source.Tags()["scalars"]
    }


# -- refinement ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Counted:
    """Columns of the tables of refinements."""

    columns: tuple[str, ...] = ("asked", "salvageable", "accepted", "rejected", "unsalvageable", "survived", "failed")

    def row(self, name: str, counts: Mapping[str, int]) -> tuple[object, ...]:
        return (name, *(counts.get(column, 0) for column in self.columns))


def _refinement(folder: Path) -> list[str]:
    parts = ["<h2>Refinement</h2>"]
    try:
        found = summary(folder)
    except ShardError:
        return [*parts, _missing("no replay log yet")]
    counts, counted = found["refinement"], _Counted()
    parts.append(
        f"<p>{counts['asked']} decisions asked, {counts['salvageable']} salvageable, {counts['accepted']} accepted, "
        f"{counts['rejected']} rejected, {found['pending']} pending; {counts['rounds']} rounds, of these "
        f"{counts['later_rounds']} later than the first. {found['edits']} rewards edited by the critic. "
        f"{found['mb_per_1000_decisions']:.1f} MB of shards for 1,000 decisions.</p>"
    )
    if counts["by_distance"]:
        ordered = sorted(counts["by_distance"].items(), key=lambda item: int(item[0]))
        rows = [counted.row(distance, row) for distance, row in ordered]
        parts.append(_table(("decisions before the blackout", *counted.columns), rows))
    if counts["by_reason"]:
        rows = [counted.row(reason, row) for reason, row in counts["by_reason"].items()]
        parts.append(_table(("reason", *counted.columns), rows))
    said = {**{f"replayed, {key}": n for key, n in counts["verdicts"].items()}, **counts["errors"]}
    if said:
        parts.append(_table(("outcome of a round", "rounds"), list(said.items())))
    rows = list(found["sources"].items())
    parts.append(_table(("transitions from", "rows"), rows))
    parts += [f"<p><b>{escape(line)}</b></p>" for line in found["problems"]]
    return parts


def _finetuning(files: Iterable[Path]) -> list[str]:
    rows = []
    for one in (_read(path) for path in files):
        if one is None:
            continue
        gate, decision = one["gate"], "published" if one["published"] else "accepted" if one["accepted"] else "refused"
        rows.append(
            (
                f"{one['role']}-v{one['version']}",
                one["against"],
                one["data"]["refinements"],
                f"{gate['present_regret']:.3f} → {gate['new_regret']:.3f}",
                f"{gate['difference']:+.4f} (standard error {gate['standard_error']:.4f})",
                gate["states"],
                f"{decision} {one['problem']}".strip(),
                f"{one['seconds']:.0f} s",
            )
        )
    head = ("adapter", "against", "refinements", "survival regret", "difference", "held-out", "decision", "time")
    return ["<h2>Fine-tuning</h2>", _table(head, rows) if rows else _missing("none in this run")]


def _settings(path: Path) -> list[str]:
    if not path.is_file():
        return []
    text = escape(path.read_text())
    return ["<h2>Settings</h2>", f"<details><summary>{CONFIG}</summary><pre>{text}</pre></details>"]


# -- pieces ----------------------------------------------------------------------------------------------------------


def _table(head: Sequence[str], rows: Rows) -> str:
    top = "".join(f"<th>{escape(cell)}" for cell in head)
    lines = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}" for cell in row) for row in rows)
    return f"<table><tr>{top}{lines}</table>"


def _missing(words: str) -> str:
    return f"<p class=quiet>{words}</p>"


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read: {error}", "restore or remove the file") from error


def _scaled(ci95: Sequence[float] | None) -> tuple[float, float] | None:
    return None if ci95 is None else (100 * ci95[0], 100 * ci95[1])


def _range(ci95: Sequence[float] | None, scale: float, form: str) -> str:
    return "-" if ci95 is None else " to ".join(form.format(scale * value) for value in ci95)


def _milliseconds(found: Mapping[str, float | None]) -> str:
    return "-" if found["p50"] is None else f"{found['p50']:.0f} / {found['p99']:.0f} ms"
