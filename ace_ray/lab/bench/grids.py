"""`ace bench grids`: the simple agents on every grid, and one page of tables made from the results.

    DIR/<grid>/  about.json  <agent>.json  <agent>_overloaded.json  [screen.json]  …  and DIR/grids.md

Results that lie in the folder already are not played again, so the command may be repeated, continued after an
interruption, and asked for the page alone. `screen.json` is what `ace bench screen --json` wrote, taken up if there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ace_ray.config.errors import DataError
from ace_ray.config.grid import CriticalSettings, GridSettings
from ace_ray.evaluation.evaluate import evaluate_all
from ace_ray.evaluation.result import Evaluation, load, plain_name
from ace_ray.evaluation.tables import markdown_table, table
from ace_ray.grid.physics.catalogue import SUBSTATION, Catalogue
from ace_ray.grid.scenarios.environment import make_env

# Twelve scenarios a grid, of three days at most. Where one or two chronics are all that ships and a seed makes an
# episode different, they are played whole with several seeds; the table then says that they are in-sample.
GRIDS = {
    "l2rpn_case14_sandbox": "test:12",
    "l2rpn_neurips_2020_track1": "test:12;steps=864",
    "l2rpn_icaps_2021": "test:12;steps=864",
    "l2rpn_wcci_2020": "chronics=all;seeds=0-11",  # ten days: the first three are calm
    "l2rpn_wcci_2022_dev": "chronics=all;seeds=0-11",
    "l2rpn_idf_2023": "chronics=all;seeds=0-5",
    "l2rpn_neurips_2020_track2/x1": "test:12",
    "l2rpn_neurips_2020_track2/x2.5": "test:12",
}
ELSEWHERE = "test:12"
AGENTS = ("do-nothing", "reconnect", "greedy", "greedy+check")
ABOUT, SCREEN, PAGE = "about.json", "screen.json", "grids.md"
BENCH = ("screen ms", "candidates ms", "times faster than a sweep", "recall")


def play_grids(
    folder: Path,
    settings: GridSettings,
    *,
    grids: Sequence[str] = tuple(GRIDS),
    agents: Sequence[str] = AGENTS,
    scenarios: str | None,
    processes: int,
    say: Callable[[str], None],
) -> None:
    """Plays what the folder lacks and writes the page.

    Args:
        folder: of the results; made where missing.
        settings: of the grid; environment and data are replaced by those of each grid: the packaged weeks where there
            are some, else what ships with the environment.
        grids, agents: what is played.
        scenarios: the same set on every grid; None: that of `GRIDS`.
        processes: evaluation workers.
        say: gets one line a grid.

    Raises:
        AceError: as `evaluate_all`; what has been played until then is kept.
    """
    for env in grids:
        here = folder / plain_name(env)
        grid = settings.model_copy(update={"env": env, "data": None})
        predicate = grid.critical.predicate
        missing = [agent for agent in agents if not (here / _file(agent, predicate)).exists()]
        if not (here / ABOUT).exists():
            here.mkdir(parents=True, exist_ok=True)
            (here / ABOUT).write_text(json.dumps(_about(grid), indent=1) + "\n")
        chosen = scenarios or GRIDS.get(env, ELSEWHERE)
        for one in evaluate_all(missing, chosen, grid, processes=processes) if missing else []:
            one.save(here / _file(one.agent, predicate))
        say(f"{env}: {len(missing)} agents played, {len(agents) - len(missing)} were there")
    (folder / PAGE).write_text(page(folder))


def page(folder: Path) -> str:
    """The page (Markdown) of all grids of the folder: an overview, then a table of agents for each.

    Raises:
        DataError: there are none, or results of one grid are not of the same scenarios.
    """
    found = {path.parent: _read(path) for path in sorted(folder.glob(f"*/{ABOUT}"))}
    results = {here: _results(here) for here in found}
    if not any(results.values()):
        raise DataError(f"{folder} has no results", "`ace bench grids` writes them")
    order = sorted((here for here in found if results[here]), key=lambda here: _place(found[here]["env"]))
    agents = sorted({one.agent for here in order for one in results[here]}, key=_rank)
    benched = any((here / SCREEN).is_file() for here in order)
    head = ["grid", "substations", "lines", "topology actions", *(BENCH * benched), *(f"{one}, %" for one in agents)]
    rows = [head]
    for here in order:
        about, survival = found[here], {one.agent: f"{100 * one.survival.mean:.1f}" for one in results[here]}
        sizes = [f"{about[key]:,}" for key in ("substations", "lines", "topology_actions")]
        bench = _bench(here / SCREEN) if benched else []
        rows.append([about["env"], *sizes, *bench, *(survival.get(agent, "-") for agent in agents)])
    parts = [markdown_table(rows)]
    for here in order:
        evaluations = results[here]
        names = [one.agent for one in evaluations]
        reference = "greedy" if "greedy" in names else names[0]
        parts.append(f"## {found[here]['env']}\n\n{table(evaluations, reference=reference).markdown()}".rstrip())
    return "\n\n".join(parts) + "\n"


def _about(settings: GridSettings) -> dict[str, Any]:
    env = make_env(settings)
    catalogue = Catalogue.from_env(env)
    return {
        "env": settings.env,
        "substations": int(env.n_sub),
        "lines": int(env.n_line),
        "topology_actions": int((catalogue.kind == SUBSTATION).sum()),
        "catalogue": catalogue.hash,
    }


def _file(agent: str, predicate: str) -> str:
    return f"{plain_name(_label(agent, predicate))}.json"


def _label(agent: str, predicate: str) -> str:
    """The agent, and its predicate where that is not the usual one."""
    return agent if predicate == CriticalSettings().predicate else f"{agent} ({predicate})"


def _results(here: Path) -> list[Evaluation]:
    found = [load(path) for path in here.glob("*.json") if path.name not in (ABOUT, SCREEN)]
    found = [replace(one, agent=_label(one.agent, one.predicate)) for one in found]
    return sorted(found, key=lambda one: _rank(one.agent))


def _bench(path: Path) -> list[str]:
    """Figures of `ace bench screen`; dashes where it was not run."""
    if not path.is_file():
        return ["-"] * len(BENCH)
    found = _read(path)
    slots = [key for key in found["recall"] if key.isdigit()]
    recall = found["recall"][max(slots, key=int)] if slots else None
    return [
        f"{found['screen_ms']['median']:.1f}",
        f"{found['candidates_ms']['median']:.1f}",
        "-" if found["speedup_sweep"] is None else f"{found['speedup_sweep']:.0f}",
        "-" if recall is None else f"{100 * recall:.0f} % of {found['recall']['states']}",
    ]


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} cannot be read: {error}", "remove the file; it will be made again") from error


def _place(env: str) -> tuple[int, str]:
    known = list(GRIDS)
    return (known.index(env) if env in known else len(known), env)


def _rank(agent: str) -> tuple[int, str]:
    plain = agent.partition(" ")[0]
    return (AGENTS.index(plain) if plain in AGENTS else len(AGENTS), agent)
