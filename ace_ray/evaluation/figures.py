"""Pictures of the grid: what an action changed, before and after."""

from __future__ import annotations

import os
import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

BUS_COLOURS = ("#22313f", "#1f77d0")  # bus 1, bus 2
RHO_BOUNDS = (0.0, 0.5, 0.7, 0.85, 0.95, 1.0, 1.2)
RHO_COLOURS = ListedColormap(["#9aa5ad", "#7fb069", "#e6c229", "#f17105", "#d11149", "#6a0136"])
RHO_NORM = BoundaryNorm(RHO_BOUNDS, RHO_COLOURS.N)
DEAD = "#8c8c8c"
RING = "#8e24aa"
LABELLED = 4  # lines whose rho is written beside them


def action_figure(
    layout: Mapping[str, Sequence[float]],
    before: Any,
    action: Any,
    after: Any,
    path: str | os.PathLike[str],
    described: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Draws the grid before an action and one step after it, side by side.

    Lines are coloured by rho, dashed where out of service. A split substation is two dots, bus 1 and bus 2, and each
    line ends at its own; substations and lines that the action touched are ringed.

    Args:
        layout: `env.grid_layout`.
        before, after: observations.
        action: Grid2Op action between them.
        path: PNG file, its folder is made.
        described: what the action does, as `Catalogue.describe` says; empty: no words.

    Returns:
        The path written.
    """
    touched_lines, touched_subs = action.get_topological_impact()
    titles = (f"before, step {before.current_step}", f"one step after, step {after.current_step}")
    figure = Figure(figsize=(19, 8.4), layout="constrained")  # without pyplot: no display, nothing global
    axes = figure.subplots(1, 2)
    for axis, obs, title in zip(axes, (before, after), titles, strict=True):
        lost = int((~obs.line_status).sum())
        gone = " · BLACKOUT" if not obs.line_status.any() else ""
        axis.set_title(
            f"{title} · max rho {obs.rho.max():.2f} on line {int(obs.rho.argmax())} · {lost} lines out{gone}",
            fontsize=13,
        )
        _draw(axis, layout, obs, np.flatnonzero(touched_subs), np.flatnonzero(touched_lines))
    figure.suptitle(f"{_clock(before)}    {_words(described)}", fontsize=13)
    marks = [
        Line2D([], [], color=BUS_COLOURS[0], marker="o", ls="", label="bus 1"),
        Line2D([], [], color=BUS_COLOURS[1], marker="o", ls="", label="bus 2 of a split substation"),
        Line2D([], [], color=RING, marker="o", mfc="none", ms=12, ls="", label="touched by the action"),
        Line2D([], [], color=DEAD, ls=(0, (3, 3)), label="out of service"),
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=4, frameon=False)
    scale = ScalarMappable(norm=RHO_NORM, cmap=RHO_COLOURS)
    figure.colorbar(scale, ax=axes, shrink=0.6, pad=0.01, label="rho (current over limit)", ticks=RHO_BOUNDS[1:-1])
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path


def _clock(obs: Any) -> str:
    return f"month {obs.month:02d}, day {obs.day:02d}, {obs.hour_of_day:02d}:{obs.minute_of_hour:02d}"


def _words(described: Sequence[Mapping[str, Any]]) -> str:
    said = []
    for one in described:
        if one["kind"] == "substation":
            second = [name for name, bus in one["assignment"].items() if bus == 2]
            to = f"to bus 2: {', '.join(second)}" if second else "all on bus 1"
            said.append(f"substation {one['substation']}, {to}")
        elif one["line"] is not None:
            said.append(f"{one['kind']} line {one['line']}")
    return "\n".join(textwrap.wrap("; ".join(said), 150))


def _draw(axis: Any, layout: Mapping[str, Sequence[float]], obs: Any, subs: np.ndarray, lines: np.ndarray) -> None:
    centre = np.array([layout[str(name)] for name in obs.name_sub], dtype=float)
    spread = 0.013 * float(np.ptp(centre, axis=0).max())
    split = np.zeros(obs.n_sub, dtype=bool)
    owner = np.repeat(np.arange(obs.n_sub), obs.sub_info)
    split[owner[obs.topo_vect == 2]] = True
    parallel: dict[tuple[int, int], list[int]] = defaultdict(list)
    for line in range(obs.n_line):
        ends = sorted((int(obs.line_or_to_subid[line]), int(obs.line_ex_to_subid[line])))
        parallel[ends[0], ends[1]].append(line)
    loaded = set(np.argsort(-obs.rho)[:LABELLED])
    for siblings in parallel.values():
        for place, line in enumerate(siblings):
            bend = 1.6 * spread * (place - (len(siblings) - 1) / 2)
            _branch(axis, obs, line, centre, split, spread, bend, line in loaded, line in lines)
    for sub in range(obs.n_sub):
        for bus in (0, 1) if split[sub] else (0,):
            x, y = _node(centre, split, spread, sub, bus + 1)
            axis.plot(x, y, "o", color=BUS_COLOURS[bus], markersize=8, zorder=4)
        if sub in subs:
            axis.plot(*centre[sub], "o", markersize=30, mfc="none", mec=RING, mew=2.2, zorder=3)
        axis.annotate(
            str(sub),
            centre[sub],
            (0, 9),
            textcoords="offset points",
            ha="center",
            fontsize=9,
            fontweight="bold",
            zorder=6,
        )
    axis.margins(0.03, 0.05)
    axis.set_axis_off()


def _node(centre: np.ndarray, split: np.ndarray, spread: float, sub: int, bus: int) -> np.ndarray:
    if not split[sub]:
        return centre[sub]
    return centre[sub] + np.array([spread if bus == 2 else -spread, 0.0])


def _branch(
    axis: Any,
    obs: Any,
    line: int,
    centre: np.ndarray,
    split: np.ndarray,
    spread: float,
    bend: float,
    labelled: bool,
    touched: bool,
) -> None:
    subs = int(obs.line_or_to_subid[line]), int(obs.line_ex_to_subid[line])
    buses = int(obs.topo_vect[obs.line_or_pos_topo_vect[line]]), int(obs.topo_vect[obs.line_ex_pos_topo_vect[line]])
    start, end = (_node(centre, split, spread, s, b) for s, b in zip(subs, buses, strict=True))
    along = (end - start) / (np.linalg.norm(end - start) or 1.0)
    if subs[0] > subs[1]:
        bend = -bend  # the normal turns with the direction: siblings must not fall on one another
    middle = (start + end) / 2 + bend * np.array([-along[1], along[0]]) * 2.5
    share = np.linspace(0.0, 1.0, 13)[:, None]  # a quadratic Bézier curve; straight where there is no sibling
    points = (1 - share) ** 2 * start + 2 * share * (1 - share) * middle + share**2 * end
    alive = bool(obs.line_status[line])
    rho = float(obs.rho[line])
    style = (
        {"color": RHO_COLOURS(RHO_NORM(rho)), "lw": 1.6 + 2.4 * min(rho, 1.3)} if alive else {"color": DEAD, "lw": 1.4}
    )
    axis.plot(*points.T, ls="-" if alive else (0, (3, 3)), zorder=2, **style)
    if touched:
        axis.plot(*points.T, color=RING, lw=8, alpha=0.25, zorder=1)
    if labelled or not alive:
        text = f"{line}: {rho:.2f}" if alive else f"{line} out"
        box = {"boxstyle": "round,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.8}
        axis.annotate(text, points[len(points) // 2], ha="center", va="center", fontsize=9, bbox=box, zorder=5)
