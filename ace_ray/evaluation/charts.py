"""Small charts as inline SVG, so that a page needs no other file."""

from __future__ import annotations

import io
from collections.abc import Sequence

from matplotlib.figure import Figure

COLOURS = ("#1f77d0", "#d1495b", "#2a9d6f", "#8e24aa")
INK = "#1c2733"


def curves(title: str, x_label: str, lines: Sequence[tuple[str, Sequence[tuple[float, float]]]]) -> str:
    """Lines `(label, [(x, y)])` over one x axis, as an SVG element."""
    figure = Figure(figsize=(5.4, 3.0), layout="constrained")
    axis = figure.subplots()
    for (label, points), colour in zip(lines, COLOURS, strict=False):
        marker = "o" if len(points) < 30 else None
        axis.plot(*zip(*points, strict=True), color=colour, label=label, lw=1.8, marker=marker, ms=3)
    axis.set_title(title, fontsize=10, color=INK)
    axis.set_xlabel(x_label, fontsize=9)
    axis.grid(alpha=0.25)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    if len(lines) > 1:
        axis.legend(fontsize=8, frameon=False)
    return _svg(figure)


def intervals(title: str, marks: Sequence[tuple[str, float, tuple[float, float] | None]], zero: bool = False) -> str:
    """Means with their intervals `(label, mean, (low, high) or None)`, one a row, as an SVG element."""
    figure = Figure(figsize=(5.4, 0.9 + 0.38 * len(marks)), layout="constrained")
    axis = figure.subplots()
    for row, (_, mean, bounds) in enumerate(marks):
        if bounds is not None:
            axis.plot(bounds, (row, row), color=COLOURS[0], lw=5, alpha=0.35, solid_capstyle="butt")
        axis.plot(mean, row, "o", color=COLOURS[0])
    if zero:
        axis.axvline(0.0, color=INK, lw=1, ls="--")
    axis.set_yticks(range(len(marks)), [label for label, _, _ in marks], fontsize=8)
    axis.set_ylim(len(marks) - 0.5, -0.5)
    axis.set_title(f"{title} (bar: 95 %)", fontsize=10, color=INK)
    axis.grid(axis="x", alpha=0.25)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right", "left"]].set_visible(False)
    return _svg(figure)


def _svg(figure: Figure) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]
